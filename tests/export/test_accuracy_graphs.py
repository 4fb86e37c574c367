"""Reference: the export's own files for the same format, and ONNX Runtime on the graphs before and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from grip_edge.bundle import GRAPH_NAMES, Bundle, open_bundle
from grip_edge.engines import NEXT_EMBEDS
from grip_edge.errors import UserError
from grip_edge.export.accuracy.candidate import Choices, write_candidate
from grip_edge.export.accuracy.float_bundle import float_model, require_float_bundle
from grip_edge.export.accuracy.groups import find_groups
from grip_edge.export.accuracy.rounding import Rounding
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.graphs import bundle_graphs
from grip_edge.export.layout import lay_out
from grip_edge.export.passes.dynamic_int8 import DynamicInt8
from grip_edge.export.passes.editing import product_matrices
from grip_edge.export.passes.plan import matrix_schemes
from grip_edge.export.passes.rescale_channels import RescaleChannels, Rescaling
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.selector import Selector
from grip_edge.export.targets.lowering import LayerChoices
from grip_edge.export.targets.static_int8 import StaticInt8
from tests.export.comparing import assert_close, random_array, session, write_graph
from tests.export.test_passes import decoder_inputs, linear_model, run_model
from tests.toy_model import IMAGE_SIDE_PX

Array = NDArray[Any]

FP32 = PrecisionOptions().formats


@pytest.fixture
def source(toy_bundle: Path) -> Bundle:
    return open_bundle(toy_bundle)


def feeds(name: str, checkpoint: Checkpoint) -> dict[str, Array]:
    if name == "decoder.onnx":
        return decoder_inputs(checkpoint)
    if name == "vision.onnx":
        return {"pixels": random_array(8, 1, 3, IMAGE_SIDE_PX, IMAGE_SIDE_PX)}
    if name == "embed.onnx":
        return {"token_ids": np.array([[1, 5, 280]])}
    features, words = random_array(1, 1, 16, 32), random_array(2, 1, 4, 48)
    return {"features": features, "question_embeds": words, "budget": np.array([5])}


def outputs(path: Path, name: str, checkpoint: Checkpoint) -> list[Array]:
    """Without the likeliest token's embedding, which only whole bundles have."""
    opened = session(path / name)
    names = [node.name for node in opened.get_outputs() if node.name != NEXT_EMBEDS]
    found: list[Array] = opened.run(names, feeds(name, checkpoint))
    return found


@pytest.mark.parametrize("precision", ["int8", "int8-weight", "int4", "fp16", "bf16"])
def test_a_candidate_without_choices_is_what_export_writes(
    checkpoint: Checkpoint, selector: Selector, source: Bundle, tmp_path: Path, precision: str
) -> None:
    """Weights byte for byte; and the graphs compute the same."""
    formats = PrecisionOptions(precision).formats
    exported, found = tmp_path / "exported", tmp_path / "found"
    for folder in (exported, found):
        folder.mkdir()
    for graph in bundle_graphs(checkpoint, selector):
        write_graph(graph, checkpoint, exported, formats)
    write_candidate(source, Choices(formats, {}, {}), found)
    for name in GRAPH_NAMES:
        assert (found / f"{name}.data").read_bytes() == (exported / f"{name}.data").read_bytes(), name
        for one, other in zip(outputs(found, name, checkpoint), outputs(exported, name, checkpoint), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_half_bundle_read_back_is_fp32_with_the_same_numbers(
    checkpoint: Checkpoint, source: Bundle, tmp_path: Path, precision: str
) -> None:
    halves, back = tmp_path / "halves", tmp_path / "back"
    for folder in (halves, back):
        folder.mkdir()
    write_candidate(source, Choices(PrecisionOptions(precision).formats, {}, {}), halves)
    write_candidate(replace(source, folder=halves), Choices(FP32, {}, {}), back)
    for name in GRAPH_NAMES:
        graph = ir.load(back / name).graph
        assert {value.dtype for value in graph.initializers.values()} <= {ir.DataType.FLOAT, ir.DataType.INT64}
        assert [node.op_type for node in graph] == [node.op_type for node in ir.load(source.path(name)).graph]
        for one, other in zip(outputs(back, name, checkpoint), outputs(halves, name, checkpoint), strict=True):
            assert_close(name, one, other, 1e-6)


def test_groups_of_the_toy_model(source: Bundle) -> None:
    """By hand: norms feed q, k, v and the MLP; up_proj feeds down_proj; attention's output cannot be rescaled."""
    decoder = float_model(source, "decoder.onnx")
    groups = {group.name: group for group in find_groups(decoder, product_matrices(decoder))}
    layer = "layers.0.self_attn"
    assert set(groups[f"{layer}.q_proj"].matrices) == {f"{layer}.{name}_proj.weight" for name in "qkv"}
    assert groups[f"{layer}.q_proj"].source == ("layers.0.input_layernorm.weight",)
    assert groups[f"{layer}.o_proj"].source == ()
    down = groups["layers.1.mlp.down_proj"]
    assert (down.source, down.source_axis) == (("layers.1.mlp.up_proj.weight",), 1)
    assert groups["lm_head"].source == ("norm.weight",)
    assert len(groups) == 4 * 2 + 1
    vision = float_model(source, "vision.onnx")
    sources = {group.name: group.source for group in find_groups(vision, product_matrices(vision))}
    norm = "encoder.layers.1.layer_norm2"
    assert sources["encoder.layers.1.mlp.fc1"] == (f"{norm}.weight", f"{norm}.bias")
    assert sources["encoder.layers.1.mlp.fc2"] == ()
    assert find_groups(vision, ()) == ()


@pytest.mark.parametrize("name", ["decoder.onnx", "vision.onnx"])
def test_rescaling_changes_weights_and_no_result(
    checkpoint: Checkpoint, source: Bundle, tmp_path: Path, name: str
) -> None:
    model = float_model(source, name)
    movable = [group for group in find_groups(model, product_matrices(model)) if group.source]
    assert len(movable) >= 4
    generator = torch.Generator().manual_seed(0)
    rescalings = []
    for group in movable:
        shape = model.graph.initializers[group.matrices[0]].shape
        assert shape is not None
        factors = torch.exp(torch.randn(shape.numpy()[0], generator=generator))
        rescalings.append(Rescaling(group.matrices, group.source, group.source_axis, factors))
    write_candidate(source, Choices(FP32, {}, {name: rescalings}), tmp_path)
    data = f"{name}.data"
    assert (tmp_path / data).read_bytes() != (source.folder / data).read_bytes()
    for one, other in zip(outputs(tmp_path, name, checkpoint), outputs(source.folder, name, checkpoint), strict=True):
        assert_close(name, one, other, 2e-4)


@pytest.mark.parametrize("factors", [torch.ones(5), torch.zeros(48), torch.full((48,), float("inf"))])
def test_factors_that_do_not_fit_are_refused(source: Bundle, factors: torch.Tensor) -> None:
    model = float_model(source, "decoder.onnx")
    with pytest.raises(ir.passes.PreconditionError):
        RescaleChannels([Rescaling(("lm_head.weight",), ("norm.weight",), 0, factors)])(model)


def test_kept_matrices_get_their_own_format(source: Bundle, tmp_path: Path) -> None:
    name = "layers.0.mlp.down_proj.weight"
    formats = PrecisionOptions("int8").formats
    write_candidate(source, Choices(formats, {"decoder.onnx": LayerChoices({name: "int8-weight"})}, {}), tmp_path)
    graph = ir.load(tmp_path / "decoder.onnx").graph
    readers = {value: {node.op_type for node in graph.initializers[value].consumers()} for value in graph.initializers}
    assert readers[f"{name}_by_output"] == {"MatMulNBits"}
    assert readers["layers.1.mlp.down_proj.weight"] == {"MatMulInteger"}
    model = float_model(source, "decoder.onnx")
    schemes = matrix_schemes(model, "decoder.onnx", formats, {name: "int8-weight", "foreign": "fp32"})
    assert {schemes.pop("lm_head.weight"), schemes.pop(name)} == {"int8-weight"}
    assert set(schemes.values()) == {"int8"}


@pytest.mark.parametrize("scheme", ["int8", "int8-weight", "int4", "fp16", "fp32"])
def test_rounding_is_what_the_passes_make_onnx_runtime_compute(source: Bundle, tmp_path: Path, scheme: str) -> None:
    weight, x = random_array(0, 160, 12), random_array(1, 9, 160) + 0.3
    rounding = Rounding(scheme, 32, False)
    rows = torch.from_numpy(x)
    found = rounding.inputs(rows, rows.min(), rows.max()) @ rounding.weight(torch.from_numpy(weight))
    if scheme == "int8":
        model = linear_model(weight)
        DynamicInt8(["w"])(model)
        assert_close("W8A8", found, run_model(model, x), 1e-3)
        in_engine, model = Rounding("int8", 0, False, fixed_scales=True), linear_model(weight)
        StaticInt8({"w": float(np.abs(x).max())})(model)
        found = in_engine.inputs(rows, rows.min(), rows.max()) @ in_engine.weight(torch.from_numpy(weight))
        assert_close("W8A8, fixed range", found, run_model(model, x), 1e-3)
    else:
        expected = (x @ weight).astype(np.float32)
        relative = float(np.square(found.numpy() - expected).sum() / np.square(expected).sum())
        low, high = {"fp32": (0.0, 1e-12), "fp16": (1e-9, 1e-6), "int8-weight": (1e-6, 1e-4), "int4": (1e-3, 1e-2)}[
            scheme
        ]
        assert low <= relative <= high, relative


def test_an_input_of_one_value_is_not_rounded() -> None:
    zeros = torch.zeros(2, 3)
    for in_engine in (False, True):
        assert Rounding("int8", 0, False, in_engine).inputs(zeros, zeros.min(), zeros.max()).equal(zeros)


def test_only_plain_float_bundles_are_read(source: Bundle) -> None:
    require_float_bundle(source)
    quantised = replace(source.manifest, weight_formats=PrecisionOptions("int8").formats)
    with pytest.raises(UserError, match=r"quantised already \(decoder int8, embedding int8, .*export one with"):
        require_float_bundle(replace(source, manifest=quantised))
    with pytest.raises(UserError, match=r"made for tensorrt-11; expected a bundle for cpu"):
        require_float_bundle(replace(source, manifest=replace(source.manifest, target="tensorrt-11")))


def test_a_bundle_that_changed_while_it_was_read(source: Bundle, tmp_path: Path) -> None:
    write_candidate(source, Choices(FP32, {}, {}), tmp_path)
    model = float_model(replace(source, folder=tmp_path), "vision.onnx")
    (tmp_path / "vision.onnx.data").write_bytes(b"")
    weight = lay_out(model, "vision.onnx").places[0].weight
    with pytest.raises(UserError, match="ended too early"):
        weight.make()


def test_all_graphs_still_load_in_onnx_runtime(source: Bundle, tmp_path: Path) -> None:
    write_candidate(source, Choices(PrecisionOptions("int4", int4_block=128).formats, {}, {}), tmp_path)
    for name in GRAPH_NAMES:
        assert ort.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]).get_outputs()
