"""Linear layers whose weights came in 4 bits keep their own codes, scales and zero points.

    x [─ Gather(order)] ─┐
    codes, scales, zero points ─ DequantizeLinear(axis 0, block) ─ MatMul

The same form as ``block_weights`` gives, without rounding again. Where the checkpoint sorted inputs by importance, the
layer's input is sorted alike; layers with the same input and order share that.

    needs    fp32 matrices [in,out] that were packed (``unpacking``), read as right-hand side of MatMul only
    leaves   each of them restored by one DequantizeLinear, which the MatMuls read
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
from torch import Tensor

from grip_edge.export.passes.editing import add_weight, require_product_matrices, result, set_weight
from grip_edge.export.quantise import pack_nibbles
from grip_edge.export.unpacking import PackedWeight
from grip_edge.export.weights import Parts, Weight

FLOAT, INT64, UINT4 = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.UINT4

# By the input and the order that it is brought into.
_Sorted = dict[tuple[ir.Value, bytes], ir.Value]


class PackedWeights(ir.passes.InPlacePass):
    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(names)

    def requires(self, model: ir.Model) -> None:
        require_product_matrices(model, self.names)
        for name in self.names:
            weight = model.graph.initializers[name].const_value
            if not isinstance(weight, PackedWeight) or not weight.turned:
                raise ir.passes.PreconditionError(f"'{name}' is no packed matrix [in,out]")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        sorted_inputs: _Sorted = {}
        for name in self.names:
            _keep_codes(model, model.graph.initializers[name], sorted_inputs)
        return ir.passes.PassResult(model, modified=bool(self.names))

    def ensures(self, model: ir.Model) -> None:
        for name in self.names:
            value = model.graph.initializers[name]
            kinds = [node.op_type for node in value.consumers()]
            if value.dtype != UINT4 or kinds != ["DequantizeLinear"]:
                raise ir.passes.PostconditionError(f"'{name}' is {value.dtype}, read by {', '.join(kinds)}")


def _keep_codes(model: ir.Model, value: ir.Value, sorted_inputs: _Sorted) -> None:
    weight, readers = value.const_value, list(value.consumers())
    assert isinstance(weight, PackedWeight)  # a precondition
    order = weight.order()
    if order is not None:
        for node in readers:
            _sort_input(model, node, str(value.name), order, sorted_inputs)
    restored = result(f"{value.name}_restored", FLOAT, value.shape)
    stored = _store(model, value, weight)
    restore = ir.node("DequantizeLinear", stored, {"axis": 0, "block_size": weight.block}, outputs=[restored])
    model.graph.insert_before(readers[0], [restore])
    for node in readers:
        node.replace_input_with(1, restored)


def _store(model: ir.Model, value: ir.Value, weight: PackedWeight) -> list[ir.Value]:
    """The matrix becomes its codes; returns codes, scales and zero points."""
    name, (inputs, outputs) = str(value.name), weight.sizes
    blocks = (inputs // weight.block, outputs)

    def compute() -> tuple[Tensor, ...]:
        unpacked = weight.unpack()
        return pack_nibbles(unpacked.codes), unpacked.scales, pack_nibbles(unpacked.zeros)

    parts = Parts(compute)
    recipe = f"{weight.recipe}, unpacked"
    set_weight(value, Weight(UINT4, (inputs, outputs), f"{recipe}: codes", parts.part(0)))
    scales = Weight(FLOAT, blocks, f"{recipe}: scales", parts.part(1))
    zeros = Weight(UINT4, blocks, f"{recipe}: zero points", parts.part(2))
    return [value, add_weight(model, f"{name}_scale", scales), add_weight(model, f"{name}_zero", zeros)]


def _sort_input(model: ir.Model, node: ir.Node, name: str, order: Tensor, sorted_inputs: _Sorted) -> None:
    source = node.inputs[0]
    if source is None:
        raise ir.passes.PreconditionError(f"MatMul '{node.name}' has no input")
    key = source, order.numpy().tobytes()
    if key not in sorted_inputs:
        places = Weight(INT64, (order.numel(),), f"order of '{name}'", lambda: order)
        indices = add_weight(model, f"{name}_order", places)
        moved = result(f"{name}_sorted", FLOAT, source.shape)
        axis = -1 if source.shape is None else len(source.shape) - 1
        gather = ir.node("Gather", [source, indices], {"axis": axis}, outputs=[moved])
        model.graph.insert_before(node, [gather])
        sorted_inputs[key] = moved
    node.replace_input_with(0, sorted_inputs[key])
