"""Rotary position embedding from products and sums, where the target has no such operator.

    x = (left, right)   ->   (left * cos - right * sin,  right * cos + left * sin)

The rows of the cosine and sine tables are looked up once per step and shared by all layers.

    needs    input [1,heads,S,d], halves rotated (not interleaved), all of d, tables indexed by position
    leaves   no RotaryEmbedding
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from grip_edge.export.passes.editing import replace_node, result
from grip_edge.export.targets.constants import add_constant

_Rows = dict[tuple[ir.Value, ir.Value], ir.Value]


class DecomposeRotary(ir.passes.InPlacePass):
    def requires(self, model: ir.Model) -> None:
        for node in _rotations(model):
            partial = [name for name in ("interleaved", "rotary_embedding_dim") if _set(node, name)]
            if partial or len(node.inputs) != 4 or any(value is None for value in node.inputs):
                raise ir.passes.PreconditionError(f"RotaryEmbedding '{node.name}' is not of the plain form")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = _rotations(model)
        rows: _Rows = {}
        for node in found:
            _decompose(model.graph, node, rows)
        return ir.passes.PassResult(model, modified=bool(found))

    def ensures(self, model: ir.Model) -> None:
        if _rotations(model):
            raise ir.passes.PostconditionError("RotaryEmbedding is left")


def _rotations(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == "RotaryEmbedding"]


def _set(node: ir.Node, name: str) -> bool:
    attribute = node.attributes.get(name)
    return attribute is not None and attribute.as_int() != 0


def _decompose(graph: ir.Graph, node: ir.Node, rows: _Rows) -> None:
    x, cos_table, sin_table, positions = (value for value in node.inputs if value is not None)
    output, dtype = node.outputs[0], x.dtype or ir.DataType.FLOAT
    cos = _rows(graph, node, cos_table, positions, rows)
    sin = _rows(graph, node, sin_table, positions, rows)
    made: list[ir.Node] = []

    def op(op_type: str, *inputs: ir.Value) -> ir.Value:
        made.append(
            ir.node(op_type, inputs, outputs=[result(f"{output.name}_{op_type.lower()}_{len(made)}", dtype, None)])
        )
        return made[-1].outputs[0]

    left, right = (result(f"{output.name}_{side}", dtype, None) for side in ("left", "right"))
    made.append(ir.node("Split", [x], {"axis": -1, "num_outputs": 2}, outputs=[left, right]))
    turned_left = op("Sub", op("Mul", left, cos), op("Mul", right, sin))
    turned_right = op("Add", op("Mul", right, cos), op("Mul", left, sin))
    turned = result(f"{output.name}_turned", dtype, output.shape)
    made.append(ir.node("Concat", [turned_left, turned_right], {"axis": -1}, outputs=[turned]))
    replace_node(graph, node, made)


def _rows(graph: ir.Graph, before: ir.Node, table: ir.Value, positions: ir.Value, known: _Rows) -> ir.Value:
    """table [P,d/2], positions [1,S] -> [1,1,S,d/2], for all heads."""
    if (table, positions) not in known:
        dtype = table.dtype or ir.DataType.FLOAT
        name = f"{table.name}_rows_{len(known)}"
        axis = add_constant(graph, f"{name}_axis", np.array([1], np.int64))
        looked_up, rows = result(f"{name}_looked_up", dtype, None), result(name, dtype, None)
        new = [
            ir.node("Gather", [table, positions], {"axis": 0}, outputs=[looked_up]),
            ir.node("Unsqueeze", [looked_up, axis], outputs=[rows]),
        ]
        graph.insert_before(before, new)
        known[table, positions] = rows
    return known[table, positions]
