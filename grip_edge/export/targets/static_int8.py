"""Linear layers in int8 with one fixed scale per input (W8A8, static): the form that TensorRT's int8 kernels want.

    x ─ QuantizeLinear ─ DequantizeLinear ─ MatMul(codes ─ DequantizeLinear(axis 1))

The largest magnitude that each layer's input takes has to be measured before (calibration); larger inputs saturate.

    needs    fp32 matrices [in,out], read as right-hand side of MatMul only, and a range for each
    leaves   those matrices in int8, and their inputs rounded to int8
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from grip_edge.export.passes.editing import require_product_matrices, result
from grip_edge.export.targets.column_weights import restore_columns
from grip_edge.export.targets.constants import add_constant

_LARGEST_CODE = 127


class StaticInt8(ir.passes.InPlacePass):
    """``largest_inputs``: the largest magnitude of the input of each matrix, by the matrix's name."""

    def __init__(self, largest_inputs: Mapping[str, float]) -> None:
        self._largest_inputs = dict(largest_inputs)

    def requires(self, model: ir.Model) -> None:
        require_product_matrices(model, self._largest_inputs)
        for name, largest in self._largest_inputs.items():
            if not (largest > 0.0 and np.isfinite(largest)):
                raise ir.passes.PreconditionError(f"the range of '{name}' is {largest}; expected a positive number")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for name, largest in self._largest_inputs.items():
            readers = list(dict.fromkeys(model.graph.initializers[name].consumers()))
            restore_columns(model, name)
            scale = np.array(largest / _LARGEST_CODE, np.float32)
            for node in readers:
                _round_input(model.graph, node, add_constant(model.graph, f"{node.outputs[0].name}_scale", scale))
        return ir.passes.PassResult(model, modified=bool(self._largest_inputs))

    def ensures(self, model: ir.Model) -> None:
        for name in self._largest_inputs:
            if model.graph.initializers[name].dtype != ir.DataType.INT8:
                raise ir.passes.PostconditionError(f"'{name}' is not int8")


def _round_input(graph: ir.Graph, node: ir.Node, scale: ir.Value) -> None:
    source = node.inputs[0]
    if source is None or source.dtype is None:
        raise ir.passes.PreconditionError(f"MatMul '{node.name}' has no input of a known type")
    name = node.outputs[0].name
    codes = result(f"{name}_codes", ir.DataType.INT8, source.shape)
    rounded = result(f"{name}_rounded", source.dtype, source.shape)
    zero = add_constant(graph, f"{name}_zero", np.array(0, np.int8))
    new = [
        ir.node("QuantizeLinear", [source, scale, zero], outputs=[codes]),
        ir.node("DequantizeLinear", [codes, scale], outputs=[rounded]),
    ]
    graph.insert_before(node, new)
    node.replace_input_with(0, rounded)
