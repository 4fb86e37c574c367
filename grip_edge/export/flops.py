"""Floating-point operations of a bundle's stages, counted from the graphs as they are.

    MatMul and its kin, Gemm, Conv      2 x (elements of the output) x (length of each dot product)
    Attention, fused or not             both products over all slots of the cache, masked ones too
    Loop                                its body, in as many turns as tokens are kept (``loop_flops``)

A multiplication and an addition are two operations. Everything else (norms, activations, softmax, top-k) is left out,
as in the papers. Symbolic axes (T, S, C, K) get their sizes from the request; no weight is read.

Not here: bytes and seconds. The count of a quantised graph is that of its matrix products, in whatever type.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from grip_edge.export.loop_flops import loop_flops

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True)
class RequestSize:
    """``text_tokens`` of the prompt around the image, ``question_tokens`` of the question alone."""

    kept_tokens: int
    text_tokens: int
    question_tokens: int


@dataclass(frozen=True)
class StageFlops:
    vision: int
    select: int
    prefill: int

    @property
    def total(self) -> int:
        return self.vision + self.select + self.prefill


def bundle_flops(folder: Path, size: RequestSize) -> StageFlops:
    """Of one request to the bundle in ``folder``."""
    graphs = {stage: ir.load(folder / f"{stage}.onnx").graph for stage in ("vision", "select", "decoder")}
    return stage_flops(graphs, size)


def stage_flops(graphs: Mapping[str, ir.Graph], size: RequestSize) -> StageFlops:
    """``graphs`` by the names vision, select and decoder. The cache is as long as the prompt."""
    prompt = size.text_tokens + size.kept_tokens
    return StageFlops(
        vision=graph_flops(graphs["vision"], {}),
        select=graph_flops(graphs["select"], {"T": size.question_tokens, "K": size.kept_tokens}),
        prefill=graph_flops(graphs["decoder"], {"S": prompt, "C": prompt}),
    )


def graph_flops(graph: Iterable[ir.Node], sizes: Mapping[str, int]) -> int:
    """``sizes`` gives every symbolic axis that a counted operator has; a Loop takes ``K`` turns."""
    return sum(_node_flops(node, sizes) for node in graph)


def _node_flops(node: ir.Node, sizes: Mapping[str, int]) -> int:
    if node.op_type == "Loop":
        return loop_flops(
            node, sizes["K"], lambda value: _shape(node, value, sizes), lambda body: graph_flops(body, sizes)
        )
    count = _COUNTS.get(node.op_type)
    return 0 if count is None else count(node, sizes)


def _matmul(node: ir.Node, sizes: Mapping[str, int]) -> int:
    """[...,m,k] x [...,k,n]; only inputs are looked at, since a product without its bias may have no shape noted."""
    left, right = (_shape(node, value, sizes) for value in node.inputs[:2])
    batch = math.prod(np.broadcast_shapes(left[:-2], right[:-2]))
    return 2 * batch * left[-2] * left[-1] * right[-1]


def _block_product(node: ir.Node, sizes: Mapping[str, int]) -> int:
    return 2 * math.prod(_shape(node, node.inputs[0], sizes)) * node.attributes["N"].as_int()


def _gemm(node: ir.Node, sizes: Mapping[str, int]) -> int:
    left, right = (_shape(node, value, sizes) for value in node.inputs[:2])
    outputs = right[0] if _flag(node, "transB") else right[1]
    return 2 * math.prod(left) * outputs


def _conv(node: ir.Node, sizes: Mapping[str, int]) -> int:
    # a filter is [outputs, inputs per group, height, width]
    return 2 * math.prod(_shape(node, node.outputs[0], sizes)) * math.prod(_shape(node, node.inputs[1], sizes)[1:])


def _attention(node: ir.Node, sizes: Mapping[str, int]) -> int:
    """query [B,H,S,d], key [B,G,C,d] -> output [B,H,S,e]; or without the heads' axis, with width H x d and H x e."""
    query, key, out = (_shape(node, value, sizes) for value in (node.inputs[0], node.inputs[1], node.outputs[0]))
    return 2 * key[-2] * (math.prod(query) + math.prod(out))


def _cached_attention(node: ir.Node, sizes: Mapping[str, int]) -> int:
    """query [B,S,H x d], cached keys [B,G,C,d] -> output [B,S,H x d]."""
    query, cached = (_shape(node, node.inputs[index], sizes) for index in (0, 3))
    return 4 * cached[-2] * math.prod(query)


def _flag(node: ir.Node, name: str) -> bool:
    return name in node.attributes and bool(node.attributes[name].as_int())


_COUNTS: dict[str, Callable[[ir.Node, Mapping[str, int]], int]] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "MatMulNBits": _block_product,
    "Gemm": _gemm,
    "Conv": _conv,
    "Attention": _attention,
    "GroupQueryAttention": _cached_attention,
    "MultiHeadAttention": _attention,
}


def _shape(node: ir.Node, value: ir.Value | None, sizes: Mapping[str, int]) -> tuple[int, ...]:
    if value is None or value.shape is None:
        raise ValueError(f"{node.op_type} '{node.name}' has an input or output without a shape")
    return tuple(axis if isinstance(axis, int) else _evaluate(str(axis.value), sizes) for axis in value.shape)


def _evaluate(expression: str, sizes: Mapping[str, int]) -> int:
    """A sum, difference, product or quotient of sizes and numbers, such as ``T + 145``."""

    def value(tree: ast.expr) -> int:
        match tree:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(id=name) if name in sizes:
                return sizes[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
        raise ValueError(f"axis '{expression}' is not known; sizes are given for {', '.join(sizes) or 'none'}")

    return value(ast.parse(expression, mode="eval").body)
