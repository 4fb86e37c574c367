"""Reference: the same network traced for ONNX Runtime's CPU in fp32; every target's form of it must agree there.

The rules of the static check are tested one by one on graphs that break them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from grip_edge.calibration.scorer_files import load_scorer
from grip_edge.calibration.selection import keep_best_numpy
from grip_edge.catalog import SCORER_FOLDER, find_model
from grip_edge.engines import GREEDY_TOKEN
from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint, open_checkpoint
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.selector import ScorerSelector, Selector
from grip_edge.export.targets.budget_select import budget_select_function
from grip_edge.export.targets.check import TargetError, check_graph
from grip_edge.export.targets.formats import target_formats
from grip_edge.export.targets.table import ALIASES, BOARDS, CPU, TARGETS, find_target, target_names
from tests.export.comparing import assert_close, random_array
from tests.export.lowered import GRAPHS, lowered, node_kinds, traced_graphs
from tests.toy_model import VISUAL_TOKENS

Array = NDArray[Any]
KEPT = 5
FILLED = 6  # slots of the cache: two before, four new; those behind are undefined where they are not one buffer
DECOMPOSED = ("tensorrt-10.3", "tensorrt-10.13")

# Largest difference from fp32, relative to the largest number.
FP16_TOLERANCE = 0.02
QUANTISED_TOLERANCE = {"int8": 0.06, "int8-weight": 0.06, "int4": 0.5}


@pytest.fixture(scope="module")
def traced(checkpoint: Checkpoint, selector: Selector) -> dict[str, ir.Model]:
    return traced_graphs(checkpoint, selector)


def run(model: ir.Model, feeds: dict[str, Array]) -> dict[str, Array]:
    """The outputs by name; float inputs are cast to the type that the graph wants."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    types = {node.name: np.float16 if "float16" in node.type else None for node in session.get_inputs()}
    cast = {name: feed.astype(types[name] or feed.dtype) for name, feed in feeds.items()}
    return dict(zip([node.name for node in session.get_outputs()], session.run(None, cast), strict=True))


def feeds_of(file_name: str, traced: dict[str, ir.Model]) -> dict[str, Array]:
    """Numbers that fp16 holds exactly, so that only arithmetic differs."""
    sizes = {"T": 5, "S": 4, "C": 9}
    feeds: dict[str, Array] = {}
    for index, value in enumerate(traced[file_name].graph.inputs):
        assert value.shape is not None
        shape = [sizes.get(str(axis), axis) for axis in value.shape]
        feeds[str(value.name)] = random_array(index, *shape).astype(np.float16).astype(np.float32)  # type: ignore[arg-type]
    integers = {
        "token_ids": np.array([[3, 1, 4, 1, 5]]),
        "budget": np.array([KEPT]),
        "position_ids": np.array([[7, 8, 9, 12]]),
        "write_start": np.array([2]),
    }
    return {name: integers.get(name, feed) for name, feed in feeds.items()}


@pytest.mark.parametrize("file_name", GRAPHS)
@pytest.mark.parametrize("name", list(TARGETS))
def test_every_form_equals_the_reference(name: str, file_name: str, traced: dict[str, ir.Model]) -> None:
    feeds = feeds_of(file_name, traced)
    expected = run(traced[file_name], feeds)
    for precision, tolerance in (("fp32", 1e-4), ("fp16", FP16_TOLERANCE)):
        found = run(lowered(traced[file_name], file_name, TARGETS[name], precision), feeds)
        chosen = found.pop(GREEDY_TOKEN, None)
        assert (chosen is not None) == (file_name == "decoder.onnx" and not TARGETS[name].is_compiled)
        if chosen is not None:
            assert chosen.tolist() == [[found["logits"].argmax()]]
        assert list(found) == list(expected)
        for output, reference in expected.items():
            scale = 1.0 if precision == "fp32" else max(1.0, float(np.abs(reference).max()))
            filled = np.s_[:, :, :FILLED] if output.startswith("new_cache") else np.s_[:]
            assert_close(
                f"{name} {precision} {file_name} {output}",
                found[output][filled] / scale,
                reference[filled] / scale,
                tolerance,
            )


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        (name, precision)
        for name, target in TARGETS.items()
        for precision in QUANTISED_TOLERANCE
        if precision in target.precisions
    ],
)
def test_quantised_forms_stay_near_the_reference(name: str, precision: str, traced: dict[str, ir.Model]) -> None:
    """int8 with fixed scales is compared on questions, in test_accuracy_measures."""
    feeds = feeds_of("decoder.onnx", traced)
    expected = run(lowered(traced["decoder.onnx"], "decoder.onnx", CPU), feeds)["logits"]
    found = run(lowered(traced["decoder.onnx"], "decoder.onnx", TARGETS[name], precision), feeds)["logits"]
    scale = float(np.abs(expected).max())
    assert_close(f"{name} {precision}", found / scale, expected / scale, QUANTISED_TOLERANCE[precision])
    assert np.abs(found - expected).max() > 0  # something was quantised


@pytest.mark.parametrize("name", DECOMPOSED)
def test_older_tensorrt_gets_operators_of_opset_20_only(name: str, traced: dict[str, ir.Model]) -> None:
    absent = {"Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter", "Swish"}
    for file_name in GRAPHS:
        for precision in TARGETS[name].precisions:
            model = lowered(traced[file_name], file_name, TARGETS[name], precision)
            assert model.opset_imports[""] <= 20
            assert not absent & node_kinds(model)


def test_scores_are_computed_in_fp32_where_all_else_is_fp16(traced: dict[str, ir.Model]) -> None:
    model = lowered(traced["select.onnx"], "select.onnx", TARGETS["rtx"], "fp16")
    types = {value.name: value.dtype for value in (*model.graph.inputs, *model.graph.outputs)}
    assert types["scores"] == ir.DataType.FLOAT
    assert types["features"] == types["question_embeds"] == types["kept_embeds"] == ir.DataType.FLOAT16
    select = next(node for node in model.graph if node.op_type == "BudgetSelect")
    assert [value.dtype for value in select.inputs if value is not None] == [
        ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT64,
    ]  # fmt: skip


@pytest.mark.parametrize("scores", [
    [0.5] * VISUAL_TOKENS,
    [np.nan] * 4 + [1.0] * 4 + [-np.inf] * 4 + [np.inf] * 4,
    [0.0, -0.0] * 8,
    list(range(VISUAL_TOKENS)),
])  # fmt: skip
@pytest.mark.parametrize("kept", [1, 6, VISUAL_TOKENS])
def test_the_function_equals_the_oracle(scores: list[float], kept: int) -> None:
    graph_scores, features = np.array([scores], np.float32), random_array(0, 1, VISUAL_TOKENS, 3)
    found = run(select_alone(), {"scores": graph_scores, "features": features, "budget": np.array([kept])})
    expected = keep_best_numpy(graph_scores[0], kept)
    assert found["indices"].tolist() == [expected.tolist()]
    np.testing.assert_array_equal(found["kept"], features[:, expected])


def select_alone() -> ir.Model:
    """A graph that is one BudgetSelect."""

    def value(name: str, dtype: ir.DataType, *shape: int | str) -> ir.Value:
        return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))

    inputs = [
        value("scores", ir.DataType.FLOAT, 1, VISUAL_TOKENS),
        value("features", ir.DataType.FLOAT, 1, VISUAL_TOKENS, 3),
        value("budget", ir.DataType.INT64, 1),
    ]
    outputs = [value("kept", ir.DataType.FLOAT, 1, "K", 3), value("indices", ir.DataType.INT64, 1, "K")]
    node = ir.node("BudgetSelect", inputs, domain="grip", outputs=outputs)
    graph = ir.Graph(inputs, outputs, nodes=[node], opset_imports={"": 20, "grip": 1}, name="select")
    return ir.Model(graph, ir_version=10, functions=[budget_select_function()])


def breaking(op_type: str, attributes: dict[str, Any] | None = None, inputs: int = 1, size: int = 8) -> ir.Model:
    """A graph of one node."""
    values = [
        ir.Value(name=f"x{i}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 2, size, size]))
        for i in range(inputs)
    ]
    node = ir.node(op_type, values, attributes or {}, name="culprit")
    graph = ir.Graph(values, node.outputs, nodes=[node], opset_imports={"": 20}, name="broken")
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize(
    ("model", "target", "message"),
    [
        (breaking("Swish"), "tensorrt-10.16", "not among those that the parser has"),
        (breaking("NonZero"), "rtx", "not among those that the parser has"),
        (breaking("Attention", inputs=3), "tensorrt-10.3", "not among those"),
        (breaking("Attention", inputs=3), "rtx", "no kernel in FLOAT"),
        (breaking("Relu", {"slope": 1}), "cpu", "opset 24 has no attribute slope"),
        (breaking("DequantizeLinear", {"block_size": 8}, inputs=2), "tensorrt-10.3", "has no attribute block_size"),
        (breaking("DequantizeLinear", inputs=3), "rtx", "zero points"),
        (breaking("TopK", inputs=2, size=4000), "rtx", "asked for 4000 elements, the limit is 3840"),
        (breaking("TensorScatter", inputs=2), "rtx", "found 2|input of the graph|not"),
        (breaking("Relu", inputs=2), "cpu", "1 inputs here, found 2"),
    ],
)
def test_the_check_names_the_node_that_breaks_a_rule(model: ir.Model, target: str, message: str) -> None:
    if "TensorScatter" in node_kinds(model):
        model.graph.inputs.clear()
    with pytest.raises(TargetError, match=message) as error:
        check_graph(model, "decoder.onnx", TARGETS[target])
    assert "decoder.onnx: node 'culprit'" in str(error.value)
    assert target in str(error.value)


def test_the_check_refuses_a_newer_opset() -> None:
    model = breaking("Relu")
    model.graph.opset_imports[""] = 24
    with pytest.raises(TargetError, match=r"decoder\.onnx declares opset 24, target tensorrt-10\.3 takes 20"):
        check_graph(model, "decoder.onnx", TARGETS["tensorrt-10.3"])


def test_names_of_targets() -> None:
    assert find_target("jetpack-6.2").name == "tensorrt-10.3"
    assert find_target("orin-nano").name == "tensorrt-10.3"
    assert find_target("thor").name == "tensorrt-10.13"
    assert {find_target(name).name for name in target_names()} == set(TARGETS)
    assert set(ALIASES.values()) | {board.target for board in BOARDS.values()} <= set(TARGETS)
    listed = "cpu, cuda, openvino, rtx, tensorrt-11"
    with pytest.raises(UserError, match=f"--target tpu does not exist; choose from: {listed}"):
        find_target("tpu")


@pytest.mark.parametrize(
    ("options", "target", "message"),
    [
        (PrecisionOptions("int8"), "cuda", "--precision int8 does not exist for cuda; choose from: fp32, fp16"),
        (PrecisionOptions("int8"), "rtx", "int8 for rtx needs the ranges .* calibrate BUNDLE --target rtx --precision"),
        (PrecisionOptions(cache="fp16"), "openvino", "--cache-precision is a choice for --target cpu; openvino has"),
        (PrecisionOptions("int4", cache="fp32"), "cuda", "--cache-precision is a choice for --target cpu; cuda has"),
        (PrecisionOptions("fp16", cache="fp16"), "rtx", "--cache-precision is a choice for --target cpu; rtx has its"),
        (PrecisionOptions("bf16"), "rtx", "--precision bf16 does not exist for rtx; choose from: fp32, fp16"),
        (PrecisionOptions("bf16"), "tensorrt-10.3", "--precision bf16 does not exist for tensorrt-10.3; choose from"),
        (PrecisionOptions("int4"), "tensorrt-10.3", "--precision int4 does not exist for tensorrt-10.3"),
        (PrecisionOptions("int4", int4_symmetric=False), "rtx", "--int4-asymmetric needs zero points, which rtx"),
        (PrecisionOptions("fp16", embedding="int8"), "rtx", "--embedding-precision int8 does not exist for rtx"),
        (PrecisionOptions("fp16", lm_head="fp32"), "tensorrt-11", "fp32 cannot stand beside other precisions"),
    ],
)
def test_formats_that_a_target_cannot_hold(options: PrecisionOptions, target: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        target_formats(options, TARGETS[target])


def test_int8_with_ranges_is_for_all_of_tensorrt() -> None:
    """The LM head has no form of its own in 8 bits where weights alone are not kept in 8 bits."""
    for name, lm_head in (("rtx", "int8-weight"), ("tensorrt-10.3", "fp16")):
        formats = target_formats(PrecisionOptions("int8"), TARGETS[name], calibrated=True)
        assert (formats.vision, formats.decoder, formats.lm_head, formats.embedding) == (
            "int8",
            "int8",
            lm_head,
            "fp16",
        )
    with pytest.raises(UserError, match="--precision int8 does not exist for cuda"):
        target_formats(PrecisionOptions("int8"), TARGETS["cuda"], calibrated=True)


def test_int4_for_tensorrt_has_no_zero_points_and_an_fp16_embedding() -> None:
    formats = target_formats(PrecisionOptions("int4"), TARGETS["rtx"])
    assert (formats.decoder, formats.int4_symmetric, formats.embedding) == ("int4", True, "fp16")
    assert target_formats(PrecisionOptions("int4"), CPU) == PrecisionOptions("int4").formats


@pytest.mark.parametrize("name", ["rtx", "tensorrt-10.3"])
def test_a_graph_made_for_onnx_runtime_comes_to_the_form_of_engines(name: str) -> None:
    """As calibration does it. Reference: the same decoder lowered directly; heads of this width are fused for a CPU."""
    checkpoint = open_checkpoint(find_model("llava-tiny"))
    scorer = ScorerSelector(*load_scorer(find_model("llava-tiny") / SCORER_FOLDER))
    model = traced_graphs(checkpoint, scorer)["decoder.onnx"]
    fused = lowered(model, "decoder.onnx", CPU)
    assert "GroupQueryAttention" in node_kinds(fused)
    feeds = feeds_of("decoder.onnx", {"decoder.onnx": model})
    found = run(lowered(fused, "decoder.onnx", TARGETS[name]), feeds)
    for output, expected in run(lowered(model, "decoder.onnx", TARGETS[name]), feeds).items():
        assert_close(output, found[output], expected, 1e-5)
