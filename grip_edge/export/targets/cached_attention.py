"""The decoder's attention as ONNX Runtime's own operator, GroupQueryAttention, which writes the cache as well.

It takes the place of Attention, of both TensorScatter and of the transposes around them, reads the slots that are
filled instead of the whole capacity, and works on [1,S,heads*d] as the projections give it. On 608 tokens (16 heads of
64) one layer takes 7 ms instead of 16 on two cores (docs/log.md). The towers' Attention, without a mask, gains nothing.

    needs    heads made by Reshape and Transpose and undone in the same way; rotated; the mask of ``networks.llama``
    leaves   the same inputs and outputs. Slots behind the filled ones are undefined in caches that are not one buffer.

Attention of another form stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from grip_edge.export.passes.editing import maker, result
from grip_edge.export.targets.constants import add_constant, fixed_size
from grip_edge.export.targets.heads import is_plain, merge_of, uncut_sources
from grip_edge.export.targets.table import FUSED_HEAD_MULTIPLE

DOMAIN = "com.microsoft"
CACHED_ATTENTION = "GroupQueryAttention"

_INT32, _INT64 = ir.DataType.INT32, ir.DataType.INT64

_Slots = dict[ir.Value, tuple[ir.Value, ir.Value]]
"""By the start of writing: last filled slot and number of filled slots, which all layers share."""


class FuseCachedAttention(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        matches = [match for node in model.graph if (match := _match(node)) is not None]
        slots: _Slots = {}
        for match in matches:
            _replace(model.graph, match, slots)
        if matches:
            RemoveUnusedNodesPass()(model)
            model.opset_imports[DOMAIN] = 1
        return ir.passes.PassResult(model, modified=bool(matches))


@dataclass(frozen=True)
class _Match:
    """``rotations`` are those of query and key, ``writes`` the TensorScatter of key and value; ``sources`` are query,
    key and value before they are cut into heads, and ``merge`` the Reshape that undoes the heads.
    """

    node: ir.Node
    rotations: tuple[ir.Node, ir.Node]
    writes: tuple[ir.Node, ir.Node]
    sources: list[ir.Value]
    merge: ir.Node


def _match(node: ir.Node) -> _Match | None:
    if node.op_type != "Attention":
        return None
    rotate_query, merge = maker(node.inputs[0], "RotaryEmbedding"), merge_of(node)
    write_key, write_value = (maker(value, "TensorScatter") for value in node.inputs[1:3])
    rotate_key = None if write_key is None else maker(write_key.inputs[1], "RotaryEmbedding")
    if not (rotate_query and merge and write_key and write_value and rotate_key):
        return None
    sources = uncut_sources((rotate_query.inputs[0], rotate_key.inputs[0], write_value.inputs[1]))
    if sources is None or not is_plain(node) or not _sees_what_is_written(node, write_key):
        return None
    if _size(node, 0, axis=3) % FUSED_HEAD_MULTIPLE:
        return None
    return _Match(node, (rotate_query, rotate_key), (write_key, write_value), sources, merge)


def _replace(graph: ir.Graph, match: _Match, slots: _Slots) -> None:
    node, value = match.node, match.sources[2]
    heads = _size(node, 0, axis=1), _size(node, 1, axis=1)
    query, key = map(_rotated, match.rotations, match.sources[:2], heads)
    caches = [write.inputs[0] for write in match.writes]
    attributes: dict[str, int | float] = {"num_heads": heads[0], "kv_num_heads": heads[1]}
    if "scale" in node.attributes:
        attributes["scale"] = node.attributes["scale"].as_float()
    filled = _filled_slots(graph, match.writes[0], match.sources[0], slots)
    fused = ir.node(CACHED_ATTENTION, [query, key, value, *caches, *filled], attributes, domain=DOMAIN, num_outputs=3)
    graph.insert_before(match.merge, [query.producer(), key.producer(), fused])  # type: ignore[list-item]
    replaced = (match.merge, *match.writes)
    for old, new in zip((other.outputs[0] for other in replaced), fused.outputs, strict=True):
        new.type, new.shape = old.type, old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        new.name, old.name = old.name, f"{old.name}_before"


def _rotated(rotation: ir.Node, source: ir.Value, heads: int) -> ir.Value:
    """source [1,S,heads*d], rotated without being cut."""
    old = rotation.outputs[0]
    output = result(f"{old.name}_flat", old.dtype or ir.DataType.FLOAT, source.shape)
    kept = [attribute for name, attribute in rotation.attributes.items() if name != "num_heads"]
    attributes = [ir.AttrInt64("num_heads", heads), *kept]
    ir.Node("", "RotaryEmbedding", [source, *rotation.inputs[1:]], attributes, outputs=[output])
    return output


def _filled_slots(graph: ir.Graph, write: ir.Node, new: ir.Value, known: _Slots) -> tuple[ir.Value, ir.Value]:
    """int32 [1] each: the last filled slot and the number of them, once as many as ``new`` [1,S,D] are written."""
    start = write.inputs[2]
    assert start is not None
    if start not in known:
        length, wide = result("new_slots", _INT64, [1]), result("filled_slots_wide", _INT64, [1])
        count, last = result("filled_slots", _INT32, [1]), result("last_slot", _INT32, [1])
        one = add_constant(graph, "one_slot", np.ones(1, np.int32))
        made = [
            ir.node("Shape", [new], {"start": 1, "end": 2}, outputs=[length]),
            ir.node("Add", [start, length], outputs=[wide]),
            ir.node("Cast", [wide], {"to": _INT32}, outputs=[count]),
            ir.node("Sub", [count, one], outputs=[last]),
        ]
        graph.insert_before(write, made)
        known[start] = (last, count)
    return known[start]


def _sees_what_is_written(node: ir.Node, write: ir.Node) -> bool:
    """The mask lets a query in slot p see the slots up to p: slots <= write_start + range, of the same start."""
    mask = node.inputs[3] if len(node.inputs) == 4 else None
    while mask is not None and (reshaping := maker(mask, "Unsqueeze")) is not None:
        mask = reshaping.inputs[0]
    compare = maker(mask, "LessOrEqual")
    rows = None if compare is None else maker(compare.inputs[1], "Unsqueeze")
    sum_of = None if rows is None else maker(rows.inputs[0], "Add")
    return sum_of is not None and write.inputs[2] in sum_of.inputs


def _size(node: ir.Node, index: int, axis: int) -> int:
    value = node.inputs[index]
    assert value is not None
    return fixed_size(value, axis)
