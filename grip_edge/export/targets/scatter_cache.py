"""The cache written by ScatterND, where the target has no TensorScatter.

The indices of the new slots [1,G,S,3] are the same in all layers and are made once. The cache is copied: input and
output may not be one buffer.

    needs    caches [1,G,C,d] of one G, written along axis -2, linearly, from one start
    leaves   no TensorScatter
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from grip_edge.export.passes.editing import replace_node, result
from grip_edge.export.targets.constants import add_constant, fixed_size

INT64 = ir.DataType.INT64

_Indices = dict[tuple[ir.Value, int], ir.Value]


class ScatterCache(ir.passes.InPlacePass):
    def requires(self, model: ir.Model) -> None:
        for node in _writes(model):
            mode, axis = node.attributes.get("mode"), node.attributes.get("axis")
            linear = mode is None or mode.as_string() == "linear"
            if not linear or axis is None or axis.as_int() != -2 or len(node.inputs) != 3:
                raise ir.passes.PreconditionError(f"TensorScatter '{node.name}' is not of the plain form")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = _writes(model)
        indices: _Indices = {}
        for node in found:
            cache, new, start = (value for value in node.inputs if value is not None)
            where = _indices(model.graph, node, new, start, indices)
            output = node.outputs[0]
            written = result(f"{output.name}_written", cache.dtype or ir.DataType.FLOAT, output.shape)
            replace_node(model.graph, node, [ir.node("ScatterND", [cache, where, new], outputs=[written])])
        return ir.passes.PassResult(model, modified=bool(found))

    def ensures(self, model: ir.Model) -> None:
        if _writes(model):
            raise ir.passes.PostconditionError("TensorScatter is left")


def _writes(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == "TensorScatter"]


def _indices(graph: ir.Graph, before: ir.Node, new: ir.Value, start: ir.Value, known: _Indices) -> ir.Value:
    """new [1,G,S,d], start int64 [1] -> int64 [1,G,S,3]: batch, head and slot of every row of ``new``."""
    heads = fixed_size(new, 1)
    if (start, heads) in known:
        return known[start, heads]
    made: list[ir.Node] = []
    name = f"cache_slots_{len(known)}"

    def constant(role: str, numbers: object) -> ir.Value:
        return add_constant(graph, f"{name}_{role}", np.array(numbers, np.int64))

    def op(op_type: str, inputs: list[ir.Value], **attributes: int) -> ir.Value:
        made.append(
            ir.node(op_type, inputs, attributes, outputs=[result(f"{name}_{op_type.lower()}_{len(made)}", INT64, None)])
        )
        return made[-1].outputs[0]

    length = op("Shape", [new], start=2, end=3)
    offsets = op("Range", [constant("zero", 0), op("Squeeze", [length]), constant("one", 1)])
    slots = op("Unsqueeze", [op("Add", [start, offsets]), constant("axes", [0, 1, 3])])  # [1,1,S,1]
    size = op("Concat", [constant("heads", [1, heads]), length, constant("last", [1])], axis=0)
    head = constant("head", np.arange(heads).reshape(1, heads, 1, 1))
    columns = [op("Expand", [part, size]) for part in (constant("batch", [[[[0]]]]), head, slots)]
    known[start, heads] = op("Concat", columns, axis=-1)
    graph.insert_before(before, made)
    return known[start, heads]
