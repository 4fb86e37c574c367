"""Matrices are stored in 16 bits and widened to fp32 where they are read; everything is still computed in fp32.

ONNX Runtime's CPU has no 16-bit matrix product: it would widen fp16 weights itself, and refuses bf16 ones. Written
like this both run, the files have half the bytes, and a checkpoint of that type loses nothing. Embedding rows are
widened after they are looked up, so the table stays in 16 bits in memory too.

    needs    fp32 weights, each read by MatMul, Conv or Gather only
    leaves   the weights in 16 bits, every reader gets fp32
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from grip_edge.export.passes.editing import float_weight, replace_node, result, set_weight

READERS = ("MatMul", "Conv", "Gather")


class HalfWeights(ir.passes.InPlacePass):
    def __init__(self, names: Collection[str], dtype: ir.DataType) -> None:
        self._names = tuple(names)
        self._dtype = dtype

    def requires(self, model: ir.Model) -> None:
        for name in self._names:
            if float_weight(model, name).dtype != ir.DataType.FLOAT:
                raise ir.passes.PreconditionError(f"'{name}' is not fp32")
            odd = {node.op_type for node in model.graph.initializers[name].consumers()} - set(READERS)
            if odd:
                raise ir.passes.PreconditionError(f"'{name}' is read by {', '.join(sorted(odd))}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for name in self._names:
            self._store(model.graph, model.graph.initializers[name])
        return ir.passes.PassResult(model, modified=bool(self._names))

    def ensures(self, model: ir.Model) -> None:
        for name in self._names:
            value = model.graph.initializers[name]
            kinds = {node.op_type for node in value.consumers()}
            if value.dtype != self._dtype or not kinds <= {"Cast", "Gather"}:
                raise ir.passes.PostconditionError(f"'{name}' is {value.dtype}, read by {', '.join(sorted(kinds))}")

    def _store(self, graph: ir.Graph, value: ir.Value) -> None:
        readers = list(dict.fromkeys(value.consumers()))
        weight = value.const_value
        set_weight(value, weight.cast(self._dtype))  # type: ignore[union-attr]
        for node in (node for node in readers if node.op_type == "Gather"):
            self._widen_after(graph, node)
        direct = [node for node in readers if node.op_type != "Gather"]
        if direct:
            self._widen_before(graph, value, direct)

    def _widen_before(self, graph: ir.Graph, value: ir.Value, readers: list[ir.Node]) -> None:
        wide = result(f"{value.name}_fp32", ir.DataType.FLOAT, value.shape)
        graph.insert_before(readers[0], [_widen(value, wide)])
        for node in readers:
            for index, source in enumerate(node.inputs):
                if source is value:
                    node.replace_input_with(index, wide)

    def _widen_after(self, graph: ir.Graph, gather: ir.Node) -> None:
        rows = gather.outputs[0]
        half_rows = result(f"{rows.name}_rows", self._dtype, rows.shape)
        wide = result(f"{rows.name}_fp32", ir.DataType.FLOAT, rows.shape)
        axis = gather.attributes["axis"].as_int() if "axis" in gather.attributes else 0
        lookup = ir.node("Gather", gather.inputs, {"axis": axis}, outputs=[half_rows])
        replace_node(graph, gather, [lookup, _widen(half_rows, wide)])


def _widen(value: ir.Value, wide: ir.Value) -> ir.Node:
    return ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, outputs=[wide])
