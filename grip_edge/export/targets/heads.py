"""The heads of an attention: [A,L,heads*d] is cut by Reshape and Transpose, and what comes out is put together again.

What the fusions of attention look for around the operator (``cached_attention``, ``tower_attention``).
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from grip_edge.export.passes.editing import maker

SWAP_HEADS = [0, 2, 1, 3]
"""[A,L,heads,d] <-> [A,heads,L,d]"""


def uncut_sources(values: Sequence[ir.Value | None]) -> list[ir.Value] | None:
    """[A,L,heads*d] of each [A,heads,L,d]; None unless all of them were made so."""
    found = []
    for value in values:
        transpose = maker(value, "Transpose")
        reshape = maker(transpose.inputs[0], "Reshape") if transpose is not None and _swaps_heads(transpose) else None
        source = None if reshape is None else reshape.inputs[0]
        if source is None:
            return None
        found.append(source)
    return found


def merge_of(node: ir.Node) -> ir.Node | None:
    """The Reshape of [A,heads,L,d] back to [A,L,heads*d], the only reader of an attention's output."""
    transpose = _only_reader(node.outputs[0])
    reshape = _only_reader(transpose.outputs[0]) if transpose is not None and _swaps_heads(transpose) else None
    return reshape if reshape is not None and reshape.op_type == "Reshape" else None


def is_plain(node: ir.Node) -> bool:
    """No softcap, no causality but that of a mask, no second output."""
    flags = [node.attributes[name].value for name in ("softcap", "is_causal") if name in node.attributes]
    return not any(flags) and len(node.outputs) == 1


def _swaps_heads(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and list(node.attributes["perm"].as_ints()) == SWAP_HEADS


def _only_reader(value: ir.Value) -> ir.Node | None:
    readers = [use.node for use in value.uses()]
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None
