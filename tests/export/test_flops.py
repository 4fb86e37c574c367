"""References: operations of the toy model counted by hand, layer by layer, and one-node graphs."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from grip_edge.export.flops import RequestSize, bundle_flops, graph_flops
from tests.toy_model import GRID, IMAGE_SIDE_PX, PATCH_PX, VISUAL_TOKENS, toy_tokenizer

TEXT, QUESTION = 21, 9
# The toy's shape (tests/toy_model.py): two of three vision layers are exported.
VISION_WIDTH, VISION_MLP, VISION_LAYERS = 32, 64, 2
WIDTH, MLP, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 48, 96, 2, 4, 2, 12


def linear(tokens: int, inputs: int, outputs: int) -> int:
    return 2 * tokens * inputs * outputs


def vision_by_hand() -> int:
    tokens = VISUAL_TOKENS + 1
    patches = linear(VISUAL_TOKENS, 3 * PATCH_PX**2, VISION_WIDTH)
    attention = 4 * linear(tokens, VISION_WIDTH, VISION_WIDTH) + 2 * 2 * tokens * tokens * VISION_WIDTH
    mlp = 2 * linear(tokens, VISION_WIDTH, VISION_MLP)
    return patches + VISION_LAYERS * (attention + mlp)


def prefill_by_hand(kept: int) -> int:
    tokens = TEXT + kept
    projections = linear(tokens, WIDTH, HEADS * HEAD_DIM) + 2 * linear(tokens, WIDTH, KV_HEADS * HEAD_DIM)
    attention = LAYERS * (projections + 2 * 2 * tokens * tokens * HEADS * HEAD_DIM)
    tokens_behind = (LAYERS - 1) * tokens + 1  # of the last layer only the last one
    behind = linear(tokens_behind, HEADS * HEAD_DIM, WIDTH) + 3 * linear(tokens_behind, WIDTH, MLP)
    return attention + behind + linear(1, WIDTH, len(toy_tokenizer()))


@pytest.mark.parametrize("kept", [2, 8, VISUAL_TOKENS])
def test_vision_and_prefill_are_what_the_layers_add_up_to(toy_bundle: Path, kept: int) -> None:
    assert IMAGE_SIDE_PX == GRID * PATCH_PX
    found = bundle_flops(toy_bundle, RequestSize(kept, TEXT, QUESTION))
    assert found.vision == vision_by_hand()
    assert found.prefill == prefill_by_hand(kept)
    assert found.total == found.vision + found.select + found.prefill


def test_only_kept_tokens_are_projected(toy_bundle: Path) -> None:
    few, many = (bundle_flops(toy_bundle, RequestSize(kept, TEXT, QUESTION)).select for kept in (2, 8))
    assert many - few == linear(6, VISION_WIDTH, WIDTH) + linear(6, WIDTH, WIDTH)


def parsed(text: str) -> ir.Graph:
    return ir.serde.deserialize_model(
        onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23]> {text}')
    ).graph


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("g (float[B,5,3] x, float[3,7] w) => (float[B,5,7] y) { y = MatMul(x, w) }", 2 * 4 * 5 * 3 * 7),
        ("g (float[B,3] x, float[3,7] w) => (float[B,7] y) { y = Gemm(x, w) }", 2 * 4 * 3 * 7),
        ("g (float[3,B] x, float[7,3] w) => (float[B,7] y) { y = Gemm <transA=1, transB=1> (x, w) }", 2 * 4 * 3 * 7),
        (
            "g (float[1,4,9,9] x, float[6,2,3,3] w) => (float[1,6,7,7] y) { y = Conv <group=2> (x, w) }",
            2 * 6 * 49 * 2 * 9,
        ),
        (
            # 3-d: two heads of 3 for queries and keys, of 5 for values; 6 queries, 8 slots
            "g (float[1,6,6] q, float[1,8,6] k, float[1,8,10] v) => (float[1,6,10] y) "
            "{ y = Attention <q_num_heads=2, kv_num_heads=2> (q, k, v) }",
            2 * 6 * 8 * 6 + 2 * 6 * 8 * 10,
        ),
        (
            # grouped: four query heads share two key heads
            "g (float[1,4,6,3] q, float[1,2,8,3] k, float[1,2,8,3] v) => (float[1,4,6,3] y) { y = Attention(q, k, v) }",
            2 * 2 * 4 * 6 * 8 * 3,
        ),
        ("g (float[2,1,B,3] x, float[6,3,7] w) => (float[2,6,B,7] y) { y = MatMul(x, w) }", 2 * 12 * 4 * 3 * 7),
        ("g (float[B,5] x) => (float[B,5] y) { y = Softmax(x) }", 0),
    ],
)
def test_operators_one_by_one(text: str, expected: int) -> None:
    assert graph_flops(parsed(text), {"B": 4}) == expected


def test_a_loop_counts_as_often_as_the_budget_says() -> None:
    graph = parsed(
        """g (int64 count, bool go, float[2,2] x) => (float[2,2] y) {
            y = Loop (count, go, x) <body = b (int64 i, bool c, float[2,2] a) => (bool c2, float[2,2] a2) {
                c2 = Identity(c)
                a2 = MatMul(a, a)
            }>
        }"""
    )
    assert graph_flops(graph, {"K": 5}) == 5 * 2 * 8


def test_a_loop_may_carry_what_grows() -> None:
    """As CDPruner's factorisation: turn t multiplies [1,t] by [t,5]; 1 + 2 + 3 + 4 rows in all."""
    graph = parsed(
        """g (int64 count, bool go, float[1,5] x, float[5,1] w) => (float[r,5] y) {
            y = Loop (count, go, x) <body = b (int64 i, bool c, float[q,5] a) => (bool c2, float[p,5] a2) {
                c2 = Identity(c)
                column = MatMul(a, w)
                turned = Transpose <perm = [1, 0]> (column)
                row = MatMul(turned, a)
                a2 = Concat <axis = 0> (a, row)
            }>
        }"""
    )
    rows = 1 + 2 + 3 + 4
    assert graph_flops(graph, {"K": 4}) == 2 * rows * 5 + 2 * rows * 5


def test_axes_may_be_sums_and_products_of_sizes() -> None:
    graph = parsed("g (float[Z,3] x, float[3,7] w) => (float[Z,7] y) { y = MatMul(x, w) }")
    graph.inputs[0].shape = ir.Shape(["2*T + 145", 3])
    assert graph_flops(graph, {"T": 9}) == 2 * (2 * 9 + 145) * 3 * 7


def test_an_unknown_axis_is_named() -> None:
    graph = parsed("g (float[Z,3] x, float[3,7] w) => (float[Z,7] y) { y = MatMul(x, w) }")
    with pytest.raises(ValueError, match="axis 'Z' is not known; sizes are given for K"):
        graph_flops(graph, {"K": 5})
