"""The vision tower's attention as ONNX Runtime's own operator, MultiHeadAttention, and the standard form again.

It works on [A,L,heads*d] as the projections give it, without Reshape and Transpose around it, and in tiles, so that the
scores of all heads are never held at once: A tiles of an image, L tokens in each (docs/log.md).

    needs    fp32; no mask, causality, softcap or second output; as many key heads as query heads, made by Reshape and
             Transpose and undone in the same way
    leaves   the same inputs and outputs

Attention of another form stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from grip_edge.export.passes.editing import replace_node, result
from grip_edge.export.targets.cached_attention import DOMAIN
from grip_edge.export.targets.constants import add_constant, fixed_size
from grip_edge.export.targets.heads import SWAP_HEADS, is_plain, merge_of, uncut_sources

TOWER_ATTENTION = "MultiHeadAttention"

_Axis = int | ir.SymbolicDim


class FuseTowerAttention(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        matches = [match for node in model.graph if (match := _match(node)) is not None]
        for match in matches:
            _fuse(model.graph, match)
        if matches:
            RemoveUnusedNodesPass()(model)
            model.opset_imports[DOMAIN] = 1
        return ir.passes.PassResult(model, modified=bool(matches))


class PlainTowerAttention(ir.passes.InPlacePass):
    """For targets that lack the operator, where a graph was made for ONNX Runtime: calibration starts from such."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = [node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, TOWER_ATTENTION)]
        for node in found:
            _split(model.graph, node)
        if found:
            model.opset_imports.pop(DOMAIN, None)
        return ir.passes.PassResult(model, modified=bool(found))


@dataclass(frozen=True)
class _Match:
    """``sources`` are query, key and value before they are cut into heads, ``merge`` the Reshape that undoes them."""

    node: ir.Node
    sources: list[ir.Value]
    merge: ir.Node
    heads: int


def _match(node: ir.Node) -> _Match | None:
    if (node.domain, node.op_type) != ("", "Attention") or len(node.inputs) != 3 or not is_plain(node):
        return None
    sources, merge = uncut_sources(node.inputs), merge_of(node)
    if sources is None or merge is None:
        return None
    cut = [*node.inputs, node.outputs[0]]
    flat = [*sources, merge.outputs[0]]
    heads = {_heads(whole, parts) for whole, parts in zip(flat, cut, strict=True)}
    count = heads.pop()
    return None if heads or count is None else _Match(node, sources, merge, count)


def _heads(flat: ir.Value, cut: ir.Value | None) -> int | None:
    """Of cut [A,heads,L,d]; None unless flat is fp32 [A,L,heads*d] of known width, so that rows stay rows."""
    if cut is None or cut.shape is None or flat.shape is None or flat.dtype != ir.DataType.FLOAT:
        return None
    if len(flat.shape) != 3 or len(cut.shape) != 4:
        return None
    heads, width = cut.shape[1], cut.shape[3]
    if not isinstance(heads, int) or not isinstance(width, int):
        return None
    return heads if list(flat.shape) == [cut.shape[0], cut.shape[2], heads * width] else None


def _fuse(graph: ir.Graph, match: _Match) -> None:
    old = match.merge.outputs[0]
    attributes: dict[str, int | float] = {"num_heads": match.heads, **_scale(match.node)}
    out = result(f"{old.name}_fused", ir.DataType.FLOAT, old.shape)
    fused = ir.node(TOWER_ATTENTION, match.sources, attributes, domain=DOMAIN, outputs=[out])
    replace_node(graph, match.merge, [fused])


def _split(graph: ir.Graph, node: ir.Node) -> None:
    heads, out = node.attributes["num_heads"].as_int(), node.outputs[0]
    made: list[ir.Node] = []

    def op(op_type: str, inputs: list[ir.Value], shape: list[_Axis], **attributes: float | list[int]) -> ir.Value:
        output = result(f"{out.name}_{op_type.lower()}_{len(made)}", ir.DataType.FLOAT, shape)
        made.append(ir.node(op_type, inputs, attributes, outputs=[output]))
        return output

    def reshaped(value: ir.Value, shape: list[_Axis]) -> ir.Value:
        """The first two axes stay."""
        sizes = np.array([0, 0, *shape[2:]], np.int64)
        return op("Reshape", [value, add_constant(graph, f"{out.name}_shape_{len(made)}", sizes)], shape)

    def cut(source: ir.Value) -> ir.Value:
        batch, length = _rows(source)
        head_dim = fixed_size(source, 2) // heads
        view = reshaped(source, [batch, length, heads, head_dim])
        return op("Transpose", [view], [batch, heads, length, head_dim], perm=SWAP_HEADS)

    cuts = [cut(source) for source in node.inputs if source is not None]
    batch, length = _rows(out)
    width = fixed_size(out, 2)
    attended = op("Attention", cuts, [batch, heads, length, width // heads], **_scale(node))
    turned = op("Transpose", [attended], [batch, length, heads, width // heads], perm=SWAP_HEADS)
    reshaped(turned, [batch, length, width])
    replace_node(graph, node, made)


def _rows(value: ir.Value) -> tuple[_Axis, _Axis]:
    """A and L of [A,L,heads*d]."""
    if value.shape is None:
        raise ir.passes.PreconditionError(f"'{value.name}' has no shape")
    return value.shape[0], value.shape[1]


def _scale(node: ir.Node) -> dict[str, float]:
    return {"scale": node.attributes["scale"].as_float()} if "scale" in node.attributes else {}
