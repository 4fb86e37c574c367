"""Linear layers with weights in int8 and one scale per output: the form of weight-only int8 that TensorRT keeps.

codes [in,out], scales [out] ─ DequantizeLinear(axis 1) ─ MatMul

needs    fp32 matrices [in,out], read as right-hand side of MatMul only
leaves   each of them restored by one DequantizeLinear, which the MatMuls read
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from grip_edge.export.passes.editing import add_weight, float_weight, require_product_matrices, result, set_weight
from grip_edge.export.quantise import quantise_columns
from grip_edge.export.weights import Parts, Weight


class ColumnWeights(ir.passes.InPlacePass):
    def __init__(self, names: Collection[str]) -> None:
        self._names = tuple(names)

    def requires(self, model: ir.Model) -> None:
        require_product_matrices(model, self._names)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for name in self._names:
            restore_columns(model, name)
        return ir.passes.PassResult(model, modified=bool(self._names))

    def ensures(self, model: ir.Model) -> None:
        for name in self._names:
            value = model.graph.initializers[name]
            kinds = [node.op_type for node in value.consumers()]
            if value.dtype != ir.DataType.INT8 or kinds != ["DequantizeLinear"]:
                raise ir.passes.PostconditionError(f"'{name}' is {value.dtype}, read by {', '.join(kinds)}")


def restore_columns(model: ir.Model, name: str) -> ir.Value:
    """The matrix becomes its codes; what read it reads the restored matrix, which is returned."""
    value = model.graph.initializers[name]
    readers = list(dict.fromkeys(value.consumers()))
    weight = float_weight(model, name)
    inputs, outputs = weight.sizes
    restored = result(f"{name}_restored", ir.DataType.FLOAT, value.shape)
    parts = Parts(lambda: quantise_columns(weight.stored()))
    recipe = f"{weight.recipe}, int8 per column"
    set_weight(value, Weight(ir.DataType.INT8, (inputs, outputs), f"{recipe}: codes", parts.part(0)))
    scale = Weight(ir.DataType.FLOAT, (outputs,), f"{recipe}: scales", parts.part(1))
    codes = [value, add_weight(model, f"{name}_scale", scale)]
    node = ir.node("DequantizeLinear", codes, {"axis": 1}, outputs=[restored])
    model.graph.insert_before(readers[0], [node])
    for reader in readers:
        reader.replace_input_with(1, restored)
    return restored
