"""The token embedding table in int8: rows are looked up as codes and scales, and only those are restored.

codes ─ Gather ─┐
scales ─ Gather ┴ DequantizeLinear(last axis, block) ─▶ embeddings

needs    an fp32 table [vocabulary,width], read by Gather along axis 0 only
leaves   the table in int8
"""

from __future__ import annotations

import onnx_ir as ir

from grip_edge.export.passes.editing import add_weight, float_weight, replace_node, result, set_weight
from grip_edge.export.quantise import quantise_rows
from grip_edge.export.weights import Parts, Weight
from grip_edge.weight_blocks import fitting_block


class Int8Embedding(ir.passes.InPlacePass):
    def __init__(self, name: str, block: int) -> None:
        self._name = name
        self._block = block

    def requires(self, model: ir.Model) -> None:
        float_weight(model, self._name)
        for node in model.graph.initializers[self._name].consumers():
            axis = node.attributes.get("axis")
            if node.op_type != "Gather" or (axis is not None and axis.as_int() != 0):
                raise ir.passes.PreconditionError(f"'{self._name}' is read by {node.op_type}, not by row")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        codes = model.graph.initializers[self._name]
        weight = float_weight(model, self._name)
        rows, width = weight.sizes
        block = fitting_block(width, self._block)
        parts = Parts(lambda: quantise_rows(weight.stored(), block))
        recipe = f"{weight.recipe}, int8 per {block} of a row"
        set_weight(codes, Weight(ir.DataType.INT8, (rows, width), f"{recipe}: codes", parts.part(0)))
        scale_shape = (rows, -(-width // block))
        scale_weight = Weight(ir.DataType.FLOAT, scale_shape, f"{recipe}: scales", parts.part(1))
        scales = add_weight(model, f"{self._name}_scale", scale_weight)
        for gather in list(codes.consumers()):
            self._restore_rows(model.graph, gather, codes, scales, block)
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        value = model.graph.initializers[self._name]
        if value.dtype != ir.DataType.INT8:
            raise ir.passes.PostconditionError(f"'{self._name}' is {value.dtype}")

    def _restore_rows(self, graph: ir.Graph, gather: ir.Node, codes: ir.Value, scales: ir.Value, block: int) -> None:
        out, ids = gather.outputs[0], gather.inputs[1]
        if out.shape is None:
            raise ir.passes.PreconditionError(f"the rows of '{self._name}' have no shape")
        name, last = out.name, len(out.shape) - 1
        code_rows = result(f"{name}_codes", ir.DataType.INT8, out.shape)
        scale_rows = result(f"{name}_scales", ir.DataType.FLOAT, [*out.shape.dims[:last], scales.shape[1]])  # type: ignore[index]
        restored = result(f"{name}_restored", ir.DataType.FLOAT, out.shape)
        new = [
            ir.node("Gather", [codes, ids], {"axis": 0}, outputs=[code_rows]),
            ir.node("Gather", [scales, ids], {"axis": 0}, outputs=[scale_rows]),
            ir.node(
                "DequantizeLinear",
                [code_rows, scale_rows],
                {"axis": last, "block_size": block},
                outputs=[restored],
            ),
        ]
        replace_node(graph, gather, new)
