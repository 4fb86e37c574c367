"""Reference: the same block with standard Attention and TensorScatter, over caches written in place."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from grip_edge.attention_kernel import whole_score_matrices
from grip_edge.export.targets.cached_attention import CACHED_ATTENTION, FuseCachedAttention
from tests.export.comparing import assert_close, random_array
from tests.export.lowered import node_kinds

Array = NDArray[Any]
POSITIONS = 64

BLOCK = """
<ir_version: 11, opset_import: ["": 24]>
block (float[1,S,{query_width}] q, float[1,S,{cache_width}] k, float[1,S,{cache_width}] v,
       float[1,{groups},C,{dim}] cache_key, float[1,{groups},C,{dim}] cache_value,
       int64[1,S] position_ids, int64[1] write_start, float[{positions},{half}] cos, float[{positions},{half}] sin)
   => (float[1,S,{query_width}] y, float[1,{groups},C,{dim}] new_key, float[1,{groups},C,{dim}] new_value)
<int64[4] query_shape = {{1, -1, {heads}, {dim}}}, int64[4] cache_shape = {{1, -1, {groups}, {dim}}},
 int64[3] flat = {{1, -1, {query_width}}}, int64[1] one_axis = {{1}}, int64[2] two_axes = {{0, 1}},
 int64 zero = {{0}}, int64 one = {{1}}>
{{
   length_1 = Shape <start = 1, end = 2> (q)
   length = Squeeze (length_1)
   capacity_1 = Shape <start = 2, end = 3> (cache_key)
   capacity = Squeeze (capacity_1)
   offsets = Range (zero, length, one)
   query_slots = Add (write_start, offsets)
   rows = Unsqueeze (query_slots, one_axis)
   slots = Range (zero, capacity, one)
   seen = LessOrEqual ({compared})
   mask = Unsqueeze (seen, two_axes)
   q_view = Reshape (q, query_shape)
   q_heads = Transpose <perm = [0, 2, 1, 3]> (q_view)
   q_turned = RotaryEmbedding (q_heads, cos, sin, position_ids)
   k_view = Reshape (k, cache_shape)
   k_heads = Transpose <perm = [0, 2, 1, 3]> (k_view)
   k_turned = RotaryEmbedding (k_heads, cos, sin, position_ids)
   new_key = TensorScatter <axis = -2, mode = "linear"> (cache_key, k_turned, write_start)
   v_late = Identity (v)
   v_view = Reshape (v_late, cache_shape)
   v_heads = Transpose <perm = [0, 2, 1, 3]> (v_view)
   new_value = TensorScatter <axis = -2, mode = "linear"> (cache_value, v_heads, write_start)
   mixed = Attention <{attributes}> (q_turned, new_key, new_value, mask)
   merged = Transpose <perm = [0, 2, 1, 3]> (mixed)
   y = Reshape (merged, flat)
}}
"""


def block(
    heads: int, groups: int, dim: int, attributes: str = "scale = 0.3", compared: str = "slots, rows"
) -> ir.Model:
    text = BLOCK.format(
        heads=heads, groups=groups, dim=dim, query_width=heads * dim, cache_width=groups * dim,
        half=dim // 2, positions=POSITIONS, attributes=attributes, compared=compared,
    )  # fmt: skip
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text), strict_mode=True))


def run_in_place(model: ir.Model, feeds: dict[str, Array], whole: bool) -> dict[str, Array]:
    """Caches are bound as inputs and outputs at once; what is not filled is left out of the answer."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    with whole_score_matrices() if whole else contextlib.nullcontext():
        session = ort.InferenceSession(
            ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    binding = session.io_binding()
    binding.bind_output("y")  # outputs come in the order of binding
    caches = {}  # the buffers share these arrays' memory
    for name, feed in feeds.items():
        if name.startswith("cache_"):
            caches[name.replace("cache", "new")] = feed.copy()
            buffer = ort.OrtValue.ortvalue_from_numpy(caches[name.replace("cache", "new")])
            binding.bind_ortvalue_input(name, buffer)
            binding.bind_ortvalue_output(name.replace("cache", "new"), buffer)
        else:
            binding.bind_cpu_input(name, feed)
    session.run_with_iobinding(binding)
    filled = int(feeds["write_start"][0]) + feeds["q"].shape[1]
    found = {name: cache[:, :, :filled] for name, cache in caches.items()}
    return {"y": np.asarray(binding.get_outputs()[0].numpy()), **found}


def feeds_of(heads: int, groups: int, dim: int, new: int, before: int, free: int) -> dict[str, Array]:
    capacity = before + new + free
    positions = np.sort(np.random.default_rng(new).choice(POSITIONS, new, replace=False))
    angles = random_array(7, POSITIONS, dim // 2)
    return {
        "q": random_array(1, 1, new, heads * dim),
        "k": random_array(2, 1, new, groups * dim),
        "v": random_array(3, 1, new, groups * dim),
        "cache_key": random_array(4, 1, groups, capacity, dim),
        "cache_value": random_array(5, 1, groups, capacity, dim),
        "position_ids": positions[None].astype(np.int64),
        "write_start": np.array([before], np.int64),
        "cos": np.cos(angles),
        "sin": np.sin(angles),
    }


# One layer over a cache: heads, tokens now and before, slots that stay free; scores as whole matrices or in tiles.
LAYERS: dict[str, st.SearchStrategy[Any]] = {
    "groups": st.integers(1, 3),
    "per_group": st.integers(1, 3),
    "dim": st.sampled_from([8, 16, 24, 64]),
    "new": st.integers(1, 40),
    "before": st.integers(0, 20),
    "free": st.integers(0, 9),
    "whole": st.booleans(),
}


@settings(max_examples=40, deadline=None)
@given(**LAYERS, attributes=st.sampled_from(["scale = 0.3", "is_causal = 0"]))
def test_the_fused_operator_equals_the_standard_ones(
    groups: int, per_group: int, dim: int, new: int, before: int, free: int, whole: bool, attributes: str
) -> None:
    heads = groups * per_group
    model = block(heads, groups, dim, attributes)
    feeds = feeds_of(heads, groups, dim, new, before, free)
    expected = run_in_place(model, feeds, whole)
    FuseCachedAttention()(model)
    onnx.checker.check_model(ir.to_proto(model))  # the order of nodes, too
    assert node_kinds(model) == {
        "Identity", "Shape", "Add", "Cast", "Sub", "RotaryEmbedding", CACHED_ATTENTION,
    }  # fmt: skip
    found = run_in_place(model, feeds, whole)
    for name, reference in expected.items():
        assert_close(name, found[name], reference, 1e-5)


@pytest.mark.parametrize(
    "model",
    [
        block(2, 1, 12),
        block(2, 2, 8, "softcap = 5.0"),
        block(2, 2, 8, compared="rows, slots"),
    ],
    ids=["heads of 12", "softcap", "another mask"],
)
def test_other_attention_stays_as_it_is(model: ir.Model) -> None:
    FuseCachedAttention()(model)
    assert {"Attention", "TensorScatter"} <= node_kinds(model)
