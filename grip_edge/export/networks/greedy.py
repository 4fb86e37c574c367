"""The greedy choices of ``calibration.policies.greedy`` in standard ONNX: a Loop with as many turns as the budget.

Each function below is the source of a graph (``onnxscript`` translates it, it never runs as Python) and mirrors the
class of the same name there, for one question. All inputs have a batch axis of 1: pairs [1,N,N], tokens [1,N],
usable bool [1,N], budget int64 [1]; the result is the score per token, [1,N]. No name in them may be that of an input
or output of the whole graph, which the bodies of loops see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import BOOL, FLOAT, INT64, onnx_opset, script

import grip_edge.calibration.policies.greedy  # noqa: F401  (registers the operators)

op: Any = onnx_opset.opset18  # the exporter brings all nodes from here to the opset of the graph


@script()
def farthest_first(distance: FLOAT, first_gains: FLOAT, usable: BOOL, budget: INT64) -> FLOAT:
    pairs = op.Squeeze(distance, [0])
    gains = op.Squeeze(first_gains, [0])
    free = op.Squeeze(usable, [0])
    count = op.Cast(op.Size(gains), to=1)
    order = op.Sub(op.Cast(free, to=1), op.Cast(free, to=1))
    to_taken = op.Add(order, 4.0)  # no distance is above 2
    turns = op.Min(op.Squeeze(budget), op.ReduceSum(op.Cast(free, to=7), keepdims=0))
    for step in range(turns):
        best = op.ArgMax(op.Where(free, gains, -3.0e38), axis=0, keepdims=1)
        order = op.ScatterElements(order, best, op.Unsqueeze(1.0 - op.Cast(step, to=1) / count, [0]), axis=0)
        free = op.ScatterElements(free, best, op.Cast(op.Constant(value_ints=[0]), to=9), axis=0)
        to_taken = op.Min(to_taken, op.Squeeze(op.Gather(pairs, best), [0]))
        gains = op.Identity(to_taken)
    return op.Unsqueeze(order, [0])  # type: ignore[no-any-return]


@script()
def most_diverse(kernel: FLOAT, diagonal: FLOAT, usable: BOOL, budget: INT64) -> FLOAT:
    pairs = op.Squeeze(kernel, [0])
    gains = op.Squeeze(diagonal, [0])
    free = op.Squeeze(usable, [0])
    count = op.Cast(op.Size(gains), to=1)
    order = op.Sub(op.Cast(free, to=1), op.Cast(free, to=1))
    rounding = gains * count * 1.1920929e-07  # the distance from 1 to the next number in fp32
    factor = op.Unsqueeze(order, [0])  # a row of zeros, then a row per token
    turns = op.Min(op.Squeeze(budget), op.ReduceSum(op.Cast(free, to=7), keepdims=0))
    for step in range(turns):
        best = op.ArgMax(op.Where(free, gains, -3.0e38), axis=0, keepdims=1)
        order = op.ScatterElements(order, best, op.Unsqueeze(1.0 - op.Cast(step, to=1) / count, [0]), axis=0)
        free = op.ScatterElements(free, best, op.Cast(op.Constant(value_ints=[0]), to=9), axis=0)
        pivot = op.Gather(gains, best)
        known = op.MatMul(op.Transpose(op.Gather(factor, best, axis=1), perm=[1, 0]), factor)
        row = op.Where(pivot > 0.0, (op.Gather(pairs, best) - known) / op.Sqrt(pivot), 0.0)
        factor = op.Concat(factor, row, axis=0)
        left = gains - op.Squeeze(row * row, [0])
        gains = op.Where(left > rounding, left, 0.0)
    return op.Unsqueeze(order, [0])  # type: ignore[no-any-return]


@script()
def widest_cover(weights: FLOAT, similarity: FLOAT, usable: BOOL, budget: INT64) -> FLOAT:
    pairs = op.Squeeze(similarity, [0])
    worth = op.Transpose(weights, perm=[1, 0])
    free = op.Squeeze(usable, [0])
    count = op.Cast(op.Size(free), to=1)
    order = op.Sub(op.Cast(free, to=1), op.Cast(free, to=1))
    covered = op.Identity(order)
    turns = op.Min(op.Squeeze(budget), op.ReduceSum(op.Cast(free, to=7), keepdims=0))
    for step in range(turns):
        gains = op.Squeeze(op.MatMul(op.Relu(pairs - covered), worth), [1])
        best = op.ArgMax(op.Where(free, gains, -3.0e38), axis=0, keepdims=1)
        order = op.ScatterElements(order, best, op.Unsqueeze(1.0 - op.Cast(step, to=1) / count, [0]), axis=0)
        free = op.ScatterElements(free, best, op.Cast(op.Constant(value_ints=[0]), to=9), axis=0)
        covered = op.Max(covered, op.Squeeze(op.Gather(pairs, best), [0]))
    return op.Unsqueeze(order, [0])  # type: ignore[no-any-return]


GREEDY_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.grip_edge.farthest_first.default: farthest_first,
    torch.ops.grip_edge.most_diverse.default: most_diverse,
    torch.ops.grip_edge.widest_cover.default: widest_cover,
}
