"""Linear layers in int8 with inputs quantised as they come (W8A8, dynamic).

    x ─ DynamicQuantizeLinear ─ MatMulInteger(codes) ─ Cast ─ Mul(input scale * weight scales) ─▶ x @ weight

Inputs get one scale per tensor (uint8), weights one per output (int8). Layers that read the same input share its
quantisation. ONNX Runtime fuses the chain into one operator.

    needs    fp32 matrices [in,out], read as right-hand side of MatMul only
    leaves   those matrices in int8, read by MatMulInteger only
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from grip_edge.export.passes.editing import (
    add_weight,
    float_weight,
    replace_node,
    require_product_matrices,
    result,
    set_weight,
)
from grip_edge.export.quantise import quantise_columns
from grip_edge.export.weights import Parts, Weight

FLOAT, INT8, INT32, UINT8 = ir.DataType.FLOAT, ir.DataType.INT8, ir.DataType.INT32, ir.DataType.UINT8


class DynamicInt8(ir.passes.InPlacePass):
    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(names)

    def requires(self, model: ir.Model) -> None:
        require_product_matrices(model, self.names)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        quantised_inputs: dict[ir.Value, tuple[ir.Value, ...]] = {}
        for name in self.names:
            codes = model.graph.initializers[name]
            scales = _quantise_weight(model, codes)
            for node in list(codes.consumers()):
                _replace_product(model.graph, node, codes, scales, quantised_inputs)
        return ir.passes.PassResult(model, modified=bool(self.names))

    def ensures(self, model: ir.Model) -> None:
        for name in self.names:
            value = model.graph.initializers[name]
            kinds = {node.op_type for node in value.consumers()}
            if value.dtype != INT8 or kinds != {"MatMulInteger"}:
                raise ir.passes.PostconditionError(f"'{name}' is {value.dtype}, read by {', '.join(sorted(kinds))}")


def _quantise_weight(model: ir.Model, value: ir.Value) -> ir.Value:
    """The matrix becomes its codes; returns its scales."""
    name = str(value.name)
    weight = float_weight(model, name)
    inputs, outputs = weight.sizes
    parts = Parts(lambda: quantise_columns(weight.stored()))
    recipe = f"{weight.recipe}, int8 per column"
    set_weight(value, Weight(INT8, (inputs, outputs), f"{recipe}: codes", parts.part(0)))
    return add_weight(model, f"{name}_scale", Weight(FLOAT, (outputs,), f"{recipe}: scales", parts.part(1)))


def _replace_product(
    graph: ir.Graph,
    node: ir.Node,
    codes: ir.Value,
    scales: ir.Value,
    quantised_inputs: dict[ir.Value, tuple[ir.Value, ...]],
) -> None:
    source, out = node.inputs[0], node.outputs[0]
    if source is None:
        raise ir.passes.PreconditionError(f"MatMul '{node.name}' has no input")
    if source not in quantised_inputs:
        quantised_inputs[source] = _quantise_input(graph, node, source)
    input_codes, input_scale, input_zero = quantised_inputs[source]
    name = out.name
    sums = result(f"{name}_sums", INT32, out.shape)
    wide = result(f"{name}_wide", FLOAT, out.shape)
    both = result(f"{name}_scales", FLOAT, scales.shape)
    product = result(f"{name}_int8", FLOAT, out.shape)
    new = [
        ir.node("MatMulInteger", [input_codes, codes, input_zero], outputs=[sums]),
        ir.node("Cast", [sums], {"to": FLOAT}, outputs=[wide]),
        ir.node("Mul", [input_scale, scales], outputs=[both]),
        ir.node("Mul", [wide, both], outputs=[product]),
    ]
    replace_node(graph, node, new)


def _quantise_input(graph: ir.Graph, before: ir.Node, source: ir.Value) -> tuple[ir.Value, ...]:
    name = source.name
    outputs = [
        result(f"{name}_codes", UINT8, source.shape),
        result(f"{name}_scale", FLOAT, []),
        result(f"{name}_zero", UINT8, []),
    ]
    graph.insert_before(before, [ir.node("DynamicQuantizeLinear", [source], outputs=outputs)])
    return tuple(outputs)
