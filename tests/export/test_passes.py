"""Reference: the same graph in fp32 with the restored weights in place of the stored ones, in ONNX Runtime and numpy.

That separates what a pass does to the graph from what rounding does to the numbers: the first must be exact up to how
ONNX Runtime computes with quantised inputs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.graphs import Graph, decoder_graph, embed_graph, vision_graph
from grip_edge.export.passes.block_weights import BlockFormat, BlockWeights
from grip_edge.export.passes.drop_notes import DropNotes
from grip_edge.export.passes.dynamic_int8 import DynamicInt8
from grip_edge.export.passes.editing import product_matrices, set_weight
from grip_edge.export.passes.fold_transposes import FoldTransposes
from grip_edge.export.passes.half_weights import HalfWeights
from grip_edge.export.passes.int8_embedding import Int8Embedding
from grip_edge.export.precision import PrecisionOptions, session_config
from grip_edge.export.targets.greedy_token import drop_greedy_token
from grip_edge.export.weights import first_not_finite, given_weight
from grip_edge.manifest import WeightFormats
from tests.export.comparing import STANDARD, assert_close, random_array, write_graph
from tests.toy_model import IMAGE_SIDE_PX

Array = NDArray[Any]


def int4(**choices: Any) -> WeightFormats:
    return PrecisionOptions("int4", **choices).formats


# How much ONNX Runtime's arithmetic may differ from fp32: W8A8 rounds the inputs too, per tensor.
FORMATS = {
    "fp16": (PrecisionOptions("fp16").formats, 1e-5),
    "bf16": (PrecisionOptions("bf16").formats, 1e-5),
    "int8-weight": (PrecisionOptions("int8-weight").formats, 1e-5),
    "int4 per 32, symmetric": (int4(int4_symmetric=True), 1e-5),
    "int4 per 128": (int4(int4_block=128), 1e-5),
    "int4 but the head": (int4(lm_head="fp32", embedding="fp16"), 1e-5),
    "int8": (PrecisionOptions("int8").formats, 0.08),
    "fp32, int4 head": (PrecisionOptions("fp32", lm_head="int4").formats, 1e-5),
}


def run(path: Path, inputs: dict[str, Array], config: dict[str, str] | None = None) -> list[Array]:
    """Without ``config``, products with block-quantised weights are computed in fp32."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for key, value in (config or {"session.qdq_matmulnbits_accuracy_level": "0"}).items():
        options.add_session_config_entry(key, value)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, inputs)
    return outputs


def restored(path: Path) -> dict[str, Array]:
    """The weights of a written graph in fp32, as codes, scales and zero points say."""
    graph = ir.load(path).graph
    arrays = {name: value.const_value.numpy() for name, value in graph.initializers.items() if value.const_value}
    forms = {str(node.inputs[0].name): node.attributes for node in graph if node.op_type == "DequantizeLinear"}  # type: ignore[union-attr]
    weights = {}
    for name, codes in arrays.items():
        scales = arrays.get(f"{name}_scale")
        if scales is None:
            weights[name] = codes.astype(np.float32) if codes.dtype in (np.float16, ml_dtypes.bfloat16) else codes
        elif scales.ndim == 1:  # one per output
            weights[name] = codes * scales
        else:
            zeros = arrays.get(f"{name}_zero", np.zeros(scales.shape)).astype(np.float32)
            form = forms.get(name) or next(iter(forms.values()))  # of an embedding table, rows are restored
            axis, block = (0 if name in forms else 1), form["block_size"].as_int()
            steps, shifts = (spread(x, block, axis, codes.shape[axis]) for x in (scales, zeros))
            weights[name] = (codes.astype(np.float32) - shifts) * steps
    return weights


def spread(per_block: Array, block: int, axis: int, size: int) -> Array:
    return np.take(np.repeat(per_block, block, axis=axis), range(size), axis=axis)


def fp32_twin(twin: Path, weights: dict[str, Array]) -> None:
    """The fp32 graph ``twin`` gets the restored weights."""
    model = ir.load(twin)
    drop_greedy_token(model)  # a whole bundle's decoder embeds that token as well
    for name, value in model.graph.initializers.items():
        value.const_value = ir.tensor(weights[name], name=name)
    ir.save(model, twin, external_data=f"{twin.name}.restored")


def decoder_inputs(checkpoint: Checkpoint) -> dict[str, Array]:
    text, slots = checkpoint.text, 9
    caches = {f"cache_{kind}_{layer}": random_array(layer, 1, text.kv_heads, slots, text.head_dim)
              for layer in range(text.layers) for kind in ("key", "value")}  # fmt: skip
    embeds = random_array(7, 1, 5, text.width)
    return {"embeds": embeds, "position_ids": np.arange(2, 7)[None], "write_start": np.array([2]), **caches}


def inputs_of(graph: Graph, checkpoint: Checkpoint) -> dict[str, Array]:
    if graph.file_name == "decoder.onnx":
        return decoder_inputs(checkpoint)
    if graph.file_name == "vision.onnx":
        return {"pixels": random_array(8, 1, 3, IMAGE_SIDE_PX, IMAGE_SIDE_PX)}
    return {"token_ids": np.array([[1, 5, 280]])}


@pytest.mark.parametrize("make", [decoder_graph, embed_graph], ids=["decoder", "embed"])
@pytest.mark.parametrize("name", FORMATS)
def test_graph_with_stored_weights_equals_fp32_graph_with_restored_ones(
    checkpoint: Checkpoint, toy_bundle: Path, tmp_path: Path, make: Callable[[Checkpoint], Graph], name: str
) -> None:
    formats, tolerance = FORMATS[name]
    graph = make(checkpoint)
    write_graph(graph, checkpoint, tmp_path, formats, STANDARD)
    twin = shutil.copytree(toy_bundle, tmp_path / "fp32") / graph.file_name
    path = tmp_path / graph.file_name
    onnx.checker.check_model(str(path), full_check=True)
    assert {node.domain for node in ir.load(path).graph} == {""}
    inputs = inputs_of(graph, checkpoint)
    original = run(twin, inputs)[0]
    fp32_twin(twin, restored(path))
    found, expected = run(path, inputs)[0], run(twin, inputs)[0]
    assert relative_error(found, expected) <= tolerance, f"relative error {relative_error(found, expected):.3g}"
    changed = relative_error(expected, original)
    rounded = graph.file_name == "decoder.onnx" or formats.embedding != "fp32"
    assert 1e-5 < changed < 0.8 if rounded else changed == 0, f"rounding changes the result by {changed:.3g}"


def relative_error(found: Array, expected: Array) -> float:
    return float(np.std(found - expected) / np.std(expected))


def test_the_session_config_of_the_bundle_changes_speed_not_meaning(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Accuracy level 4 quantises the inputs of products per block."""
    formats = int4()
    write_graph(decoder_graph(checkpoint), checkpoint, tmp_path, formats, STANDARD)
    inputs = decoder_inputs(checkpoint)
    plain = run(tmp_path / "decoder.onnx", inputs)[0]
    fast = run(tmp_path / "decoder.onnx", inputs, session_config(formats))[0]
    assert 0 < relative_error(fast, plain) < 0.1


def test_the_vision_tower_in_int8(checkpoint: Checkpoint, toy_bundle: Path, tmp_path: Path) -> None:
    formats = PrecisionOptions("int8").formats
    write_graph(vision_graph(checkpoint), checkpoint, tmp_path, formats)
    nodes = [node.op_type for node in ir.load(tmp_path / "vision.onnx").graph]
    assert nodes.count("MatMulInteger") == 6 * checkpoint.vision.layers
    assert nodes.count("DynamicQuantizeLinear") == 4 * checkpoint.vision.layers, "q, k and v share their input's codes"
    assert "MatMul" not in nodes
    inputs = inputs_of(vision_graph(checkpoint), checkpoint)
    found = run(tmp_path / "vision.onnx", inputs)[0]
    expected = run(toy_bundle / "vision.onnx", inputs)[0]
    assert relative_error(found, expected) < 0.1, relative_error(found, expected)


def test_dynamic_int8_is_the_integer_arithmetic_of_its_definition() -> None:
    """Against numpy: uint8 inputs with one scale and zero point, int32 sums, scales at the end."""
    weight, x = random_array(0, 24, 6), random_array(1, 2, 24)
    model = linear_model(weight)
    DynamicInt8(["w"])(model)
    found = run_model(model, x)
    scales = np.abs(weight).max(axis=0) / 127
    codes = np.rint(weight / scales).astype(np.int32)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (high - low) / 255
    zero = np.rint(-low / step)
    x_codes = np.clip(np.rint(x / step) + zero, 0, 255).astype(np.int32)
    expected = ((x_codes - int(zero)) @ codes) * step * scales
    assert_close("W8A8", found, expected, 1e-4)


def test_sixteen_bit_rows_stay_in_sixteen_bits_until_they_are_looked_up(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for name, dtype in (("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)):
        folder = tmp_path / name
        folder.mkdir()
        write_graph(embed_graph(checkpoint), checkpoint, folder, PrecisionOptions(name).formats)
        graph = ir.load(folder / "embed.onnx").graph
        assert [node.op_type for node in graph] == ["Gather", "Cast"]
        (embeds,) = run(folder / "embed.onnx", {"token_ids": np.array([[3, 299]])})
        table = checkpoint.load("language_model.embed_tokens.weight").numpy()
        np.testing.assert_array_equal(embeds[0], table[[3, 299]].astype(dtype).astype(np.float32))


def linear_model(weight: Array, op_type: str = "MatMul") -> ir.Model:
    """x @ w, its weight described but not there yet."""
    rows, columns = weight.shape
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["M", rows]))
    y = ir.Value(name="y", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["M", columns]))
    w = ir.Value(name="w")
    set_weight(w, given_weight(torch.from_numpy(weight)))
    node = ir.node(op_type, [x, w], outputs=[y])
    return ir.Model(ir.Graph([x], [y], nodes=[node], initializers=[w], opset_imports={"": 24}), ir_version=10)


def run_model(model: ir.Model, x: Array) -> Array:
    serialised = ir.to_proto(model).SerializeToString()
    (y,) = ort.InferenceSession(serialised, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})
    return np.asarray(y)


PASSES: dict[str, Callable[[list[str]], ir.passes.InPlacePass]] = {
    "HalfWeights": lambda names: HalfWeights(names, ir.DataType.FLOAT16),
    "DynamicInt8": DynamicInt8,
    "BlockWeights": lambda names: BlockWeights(names, BlockFormat(4, 32, True)),
    "Int8Embedding": lambda names: Int8Embedding(names[0], 32),
}


@pytest.mark.parametrize("name", PASSES)
def test_passes_refuse_weights_that_they_do_not_understand(name: str) -> None:
    with pytest.raises(ir.passes.PreconditionError):
        PASSES[name](["no such weight"])(linear_model(random_array(0, 8, 8)))
    with pytest.raises(ir.passes.PreconditionError):
        PASSES[name](["w"])(linear_model(random_array(0, 8, 8), op_type="Add"))
    twice = linear_model(random_array(0, 8, 8))
    if name != "Int8Embedding":
        PASSES[name](["w"])(twice)
    with pytest.raises(ir.passes.PreconditionError):
        PASSES[name](["w"])(twice)


def test_only_right_hand_sides_of_products_are_product_matrices() -> None:
    model = linear_model(random_array(0, 8, 8))
    assert product_matrices(model) == ["w"]
    node = next(iter(model.graph))
    node.replace_input_with(0, model.graph.initializers["w"])
    assert product_matrices(model) == []


def test_notes_are_dropped() -> None:
    model = linear_model(random_array(0, 8, 8))
    next(iter(model.graph)).metadata_props["pkg.torch.onnx.stack_trace"] = "/home/somebody/code.py"
    model.graph.inputs[0].metadata_props["note"] = "x"
    DropNotes()(model)
    assert b"somebody" not in ir.to_proto(model).SerializeToString()


def test_a_gemm_that_is_no_linear_layer_is_refused() -> None:
    model = linear_model(random_array(0, 8, 8), op_type="Gemm")
    with pytest.raises(ir.passes.PreconditionError, match="expected x @ weight"):
        FoldTransposes()(model)


def test_weights_beyond_fp16_are_refused_and_bf16_is_offered() -> None:
    weight = given_weight(torch.tensor([[1.0, 7e4]]))
    with pytest.raises(UserError, match=r"7e\+04 does not fit fp16, which ends at 65504; use --precision bf16"):
        weight.cast(ir.DataType.FLOAT16).make()
    assert weight.cast(ir.DataType.BFLOAT16).make().dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("-inf"), float("inf")])
def test_the_first_number_that_is_not_finite(dtype: torch.dtype, value: float) -> None:
    tensor = torch.randn(3, 40).to(dtype)
    tensor[0, 0], tensor[0, 1] = torch.finfo(dtype).max, torch.finfo(dtype).min
    assert first_not_finite(tensor) is None
    tensor[1, 7] = tensor[2, 3] = value
    assert first_not_finite(tensor) == 47


def test_a_weight_is_what_its_description_says() -> None:
    weight = given_weight(torch.arange(6, dtype=torch.float16).reshape(2, 3))
    turned = weight.transposed().cast(ir.DataType.FLOAT)
    assert (turned.dtype, turned.sizes, turned.nbytes) == (ir.DataType.FLOAT, (3, 2), 24)
    np.testing.assert_array_equal(turned.numpy(), [[0, 3], [1, 4], [2, 5]])
    assert turned.recipe == f"{weight.recipe.removesuffix(' as FLOAT16')}, transposed as FLOAT"
    assert repr(turned) == f"FloatWeight(FLOAT, [3, 2], {turned.recipe!r})"
