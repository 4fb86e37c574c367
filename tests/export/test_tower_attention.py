"""Reference: the same attention in the standard form, alone and in vision graphs; the PyTorch tower."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from grip_edge.export.checkpoint import Checkpoint, open_checkpoint
from grip_edge.export.flops import graph_flops
from grip_edge.export.graphs import vision_graph
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.selector import Selector
from grip_edge.export.targets.table import TARGETS
from grip_edge.export.targets.tower_attention import TOWER_ATTENTION, FuseTowerAttention, PlainTowerAttention
from grip_edge.export.tracing import trace
from tests.export.comparing import assert_close, network_with_weights, random_array, session, write_graph
from tests.export.lowered import lowered, node_kinds, traced_graphs
from tests.toy_model import IMAGE_SIDE_PX

Array = NDArray[Any]

BLOCK = """
<ir_version: 11, opset_import: ["": 24]>
block ({kind}[A,L,{width}] q, {kind}[A,L,{key_width}] k, {kind}[A,L,{key_width}] v {more_inputs})
   => ({kind}[A,L,{width}] y)
<int64[4] cut = {{0, 0, {heads}, {dim}}}, int64[4] cut_keys = {{0, 0, {key_heads}, {dim}}},
 int64[3] flat = {{0, 0, {width}}}>
{{
   q_view = Reshape (q, cut)
   k_view = Reshape (k, cut_keys)
   v_view = Reshape (v, cut_keys)
   q_heads = Transpose <perm = [0, 2, 1, 3]> (q_view)
   k_heads = Transpose <perm = [0, 2, 1, 3]> (k_view)
   v_heads = Transpose <perm = [0, 2, 1, 3]> (v_view)
   {mixed} = Attention <{attributes}> (q_heads, k_heads, v_heads {more_operands})
   merged = Transpose <perm = [0, 2, 1, 3]> (mixed)
   y = Reshape (merged, flat)
}}
"""


@pytest.fixture(scope="module")
def traced_tower(checkpoint: Checkpoint, selector: Selector) -> ir.Model:
    return traced_graphs(checkpoint, selector)["vision.onnx"]


def block(
    heads: int, dim: int, attributes: str = "is_causal = 0", key_heads: int | None = None, **changes: str
) -> ir.Model:
    parts = {"kind": "float", "more_inputs": "", "more_operands": "", "mixed": "mixed"}
    text = BLOCK.format(
        heads=heads, dim=dim, width=heads * dim, attributes=attributes, key_heads=key_heads or heads,
        key_width=(key_heads or heads) * dim, **parts | changes,
    )  # fmt: skip
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text), strict_mode=True))


def run(model: ir.Model, feeds: dict[str, Array]) -> Array:
    found: Array = session(model).run(None, feeds)[0]
    return found


@settings(max_examples=40, deadline=None)
@given(
    heads=st.integers(1, 4),
    dim=st.sampled_from([1, 4, 12, 16, 32, 64, 72]),
    tokens=st.integers(1, 300),
    tiles=st.integers(1, 3),
    attributes=st.sampled_from(["is_causal = 0", "scale = 0.3", "is_causal = 0, softcap = 0.0"]),
)
def test_the_fused_operator_equals_the_standard_ones_and_back(
    heads: int, dim: int, tokens: int, tiles: int, attributes: str
) -> None:
    model = block(heads, dim, attributes)
    feeds = {name: random_array(index, tiles, tokens, heads * dim) for index, name in enumerate("qkv")}
    sizes = {"A": tiles, "L": tokens}
    expected, operations = run(model, feeds), graph_flops(model.graph, sizes)
    FuseTowerAttention()(model)
    onnx.checker.check_model(ir.to_proto(model))
    assert node_kinds(model) == {TOWER_ATTENTION}
    assert graph_flops(model.graph, sizes) == operations
    assert_close("fused", run(model, feeds), expected, 1e-5)
    PlainTowerAttention()(model)
    onnx.checker.check_model(ir.to_proto(model))
    assert node_kinds(model) == {"Reshape", "Transpose", "Attention"}
    assert dict(model.opset_imports) == {"": 24}
    assert graph_flops(model.graph, sizes) == operations
    np.testing.assert_array_equal(run(model, feeds), expected)


@pytest.mark.parametrize(
    "model",
    [
        block(2, 8, more_inputs=", float[L,L] mask", more_operands=", mask"),
        block(2, 8, "is_causal = 1"),
        block(2, 8, "softcap = 5.0"),
        block(4, 8, key_heads=2),
        block(2, 8, mixed='mixed, "", "", scores'),
        block(2, 8, kind="float16"),
        block(2, 8, more_inputs=", float[A,2,L,8] past", more_operands=', "", past, past'),
    ],
    ids=["mask", "causal", "softcap", "shared key heads", "scores as well", "fp16", "a cache"],
)
def test_other_attention_stays_as_it_is(model: ir.Model) -> None:
    before = ir.to_proto(model).SerializeToString()
    assert not FuseTowerAttention()(model).modified
    assert ir.to_proto(model).SerializeToString() == before


def test_rows_of_several_tiles_that_lie_together_stay_as_they_are() -> None:
    """The operator would take [A*L,heads*d] for something else."""
    model = block(2, 8)
    for value in model.graph.inputs:
        value.shape = ir.Shape(["R", 16])
    assert not FuseTowerAttention()(model).modified


@pytest.mark.parametrize("with_cls_attention", [False, True])
def test_the_toy_tower(checkpoint: Checkpoint, tmp_path: Path, with_cls_attention: bool) -> None:
    """The row of CLS needs the heads of query and key of the last layer beside the operator."""
    graph = vision_graph(checkpoint, with_cls_attention)
    write_graph(graph, checkpoint, tmp_path)
    model = ir.load(tmp_path / "vision.onnx")
    kinds = [node.op_type for node in model.graph]
    assert kinds.count(TOWER_ATTENTION) == checkpoint.vision.layers
    assert "Attention" not in kinds
    assert kinds.count("Transpose") <= 1 + 3 * with_cls_attention  # patches, and those of that row
    pixels = random_array(0, 1, 3, IMAGE_SIDE_PX, IMAGE_SIDE_PX)
    found = session(tmp_path / "vision.onnx").run(None, {"pixels": pixels})
    expected = network_with_weights(graph, checkpoint)(torch.from_numpy(pixels))
    expected = expected if with_cls_attention else (expected,)
    for name, ours, reference in zip(graph.output_names, found, expected, strict=True):
        assert_close(name, ours, reference, 1e-5)


@pytest.mark.parametrize("family", ["llava-1.6-vicuna", "llava-onevision"])
def test_towers_that_take_any_number_of_tiles(checkpoint_of: Callable[[str], Path], family: str) -> None:
    checkpoint = open_checkpoint(checkpoint_of(family))
    with quiet_libraries():
        model = trace(vision_graph(checkpoint))
    FuseTowerAttention()(model)
    assert [node.op_type for node in model.graph].count(TOWER_ATTENTION) == checkpoint.vision.layers
    assert "Attention" not in node_kinds(model)


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "cpu"])
def test_other_targets_get_the_standard_form_whatever_a_graph_was_made_for(traced_tower: ir.Model, name: str) -> None:
    fused = lowered(traced_tower, "vision.onnx", TARGETS["cpu"])
    assert TOWER_ATTENTION in node_kinds(fused)
    direct, again = (lowered(model, "vision.onnx", TARGETS[name]) for model in (traced_tower, fused))
    assert TOWER_ATTENTION not in node_kinds(direct) | node_kinds(again)
    assert sorted(node.op_type for node in again.graph) == sorted(node.op_type for node in direct.graph)
    assert dict(again.opset_imports) == dict(direct.opset_imports)
