"""Linear layers with weights in 4 or 8 bits and one scale per block of inputs; what they read stays as it is.

    codes, scales[, zero points] ─ DequantizeLinear(axis 0, block) ─ MatMul

ONNX Runtime fuses the pair into one operator that never restores the matrix, TensorRT reads it as it stands.

    needs    fp32 matrices [in,out], read as right-hand side of MatMul only
    leaves   each of them restored by one DequantizeLinear, which the MatMuls read; blocks are smaller where that leaves
             no rest
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import onnx_ir as ir

from grip_edge.export.passes.editing import add_weight, float_weight, require_product_matrices, result, set_weight
from grip_edge.export.quantise import quantise_blocks
from grip_edge.export.weights import Parts, Weight
from grip_edge.weight_blocks import fitting_block

_CODES = {
    (4, True): ir.DataType.INT4,
    (4, False): ir.DataType.UINT4,
    (8, True): ir.DataType.INT8,
    (8, False): ir.DataType.UINT8,
}


@dataclass(frozen=True)
class BlockFormat:
    bits: int
    block: int
    symmetric: bool

    @property
    def dtype(self) -> ir.DataType:
        return _CODES[self.bits, self.symmetric]

    def __str__(self) -> str:
        return f"int{self.bits} per {self.block}, {'symmetric' if self.symmetric else 'asymmetric'}"


class BlockWeights(ir.passes.InPlacePass):
    def __init__(self, names: Collection[str], format: BlockFormat) -> None:  # noqa: A002  the field's word for it
        self.names = tuple(names)
        self.format = format

    def requires(self, model: ir.Model) -> None:
        require_product_matrices(model, self.names)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for name in self.names:
            value = model.graph.initializers[name]
            inputs, _ = float_weight(model, name).sizes
            block = fitting_block(inputs, self.format.block)
            _restore_where_read(model, value, replace(self.format, block=block))
        return ir.passes.PassResult(model, modified=bool(self.names))

    def ensures(self, model: ir.Model) -> None:
        for name in self.names:
            value = model.graph.initializers[name]
            kinds = [node.op_type for node in value.consumers()]
            if value.dtype != self.format.dtype or kinds != ["DequantizeLinear"]:
                raise ir.passes.PostconditionError(f"'{name}' is {value.dtype}, read by {', '.join(kinds)}")


def _restore_where_read(model: ir.Model, value: ir.Value, form: BlockFormat) -> None:
    readers = list(dict.fromkeys(value.consumers()))
    restored = result(f"{value.name}_restored", ir.DataType.FLOAT, value.shape)
    node = ir.node(
        "DequantizeLinear",
        _quantise_weight(model, value, form),
        {"axis": 0, "block_size": form.block},
        outputs=[restored],
    )
    model.graph.insert_before(readers[0], [node])
    for reader in readers:
        reader.replace_input_with(1, restored)


def _quantise_weight(model: ir.Model, value: ir.Value, form: BlockFormat) -> list[ir.Value]:
    """The matrix becomes its codes; returns codes, scales and, unless symmetric, zero points."""
    name = str(value.name)
    weight = float_weight(model, name)
    inputs, outputs = weight.sizes
    blocks = (-(-inputs // form.block), outputs)
    parts = Parts(lambda: quantise_blocks(weight.stored(), form.bits, form.block, form.symmetric))
    recipe = f"{weight.recipe}, {form}"
    set_weight(value, Weight(form.dtype, (inputs, outputs), f"{recipe}: codes", parts.part(0)))
    stored = [
        value,
        add_weight(model, f"{name}_scale", Weight(ir.DataType.FLOAT, blocks, f"{recipe}: scales", parts.part(1))),
    ]
    if not form.symmetric:
        zeros = Weight(form.dtype, blocks, f"{recipe}: zero points", parts.part(2))
        stored.append(add_weight(model, f"{name}_zero", zeros))
    return stored
