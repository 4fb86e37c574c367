"""Undoes ``half_weights``: weights in 16 bits become fp32 weights, and the casts behind them go.

The numbers do not change, and no fp32 copy is made before a weight's turn comes.

    leaves   no weight in 16 bits
"""

from __future__ import annotations

import onnx_ir as ir

from grip_edge.export.passes.editing import set_weight
from grip_edge.export.weights import FloatWeight

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


class WidenWeights(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        halves = [value for value in model.graph.initializers.values() if value.dtype in _HALVES]
        for value in halves:
            if not isinstance(value.const_value, FloatWeight):
                raise ir.passes.PreconditionError(f"'{value.name}' is no weight in floating point")
            set_weight(value, value.const_value.cast(ir.DataType.FLOAT))
            for node in list(value.consumers()):
                _drop_casts(model.graph, value, node)
        return ir.passes.PassResult(model, modified=bool(halves))

    def ensures(self, model: ir.Model) -> None:
        for value in model.graph.initializers.values():
            if value.dtype in _HALVES:
                raise ir.passes.PostconditionError(f"'{value.name}' is {value.dtype}")


def _drop_casts(graph: ir.Graph, weight: ir.Value, reader: ir.Node) -> None:
    """The cast of the weight itself, or of the rows that were looked up in it."""
    if reader.op_type == "Cast":
        _bypass(graph, reader, weight)
    elif reader.op_type == "Gather":
        rows = reader.outputs[0]
        rows.type = ir.TensorType(ir.DataType.FLOAT)
        for cast in list(rows.consumers()):
            _bypass(graph, cast, rows)
    else:
        raise ir.passes.PreconditionError(f"'{weight.name}' is read in 16 bits by {reader.op_type}")


def _bypass(graph: ir.Graph, cast: ir.Node, source: ir.Value) -> None:
    wide = cast.outputs[0]
    if cast.op_type != "Cast" or wide.dtype != ir.DataType.FLOAT:
        raise ir.passes.PreconditionError(f"'{source.name}' is read in 16 bits by {cast.op_type}")
    is_output, name = wide in graph.outputs, wide.name
    ir.convenience.replace_all_uses_with(wide, source, replace_graph_outputs=True)
    graph.remove(cast, safe=True)
    if is_output:
        wide.name, source.name = f"{name}_before", name
