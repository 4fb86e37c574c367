"""Products with weights in blocks as ONNX Runtime's own operator, MatMulNBits, with the weights as it reads them.

    codes, scales[, zero points] ─ DequantizeLinear(axis 0, block) ─ MatMul     becomes     MatMulNBits

ONNX Runtime makes the same of the pair when it loads a graph, but then it turns every matrix in memory, which takes
time and leaves a copy (docs/log.md). Numbers do not change: inputs are quantised per block there too (level 4).

    needs    matrices [in,out] in 4 or 8 bits, signed without zero points or unsigned with them
    leaves   their codes as [out,blocks,bytes], unsigned

Matrices that blocks do not divide stay as they are: the operator wants the last block filled up, which takes room.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from grip_edge.export.passes.editing import add_weight, replace_node, result
from grip_edge.export.quantise import pack_nibbles, unpack_nibbles
from grip_edge.export.targets.cached_attention import DOMAIN
from grip_edge.export.weights import Parts, Weight

BLOCK_PRODUCT = "MatMulNBits"

_ACCURACY_LEVEL = 4
_BITS = {ir.DataType.INT4: 4, ir.DataType.UINT4: 4, ir.DataType.INT8: 8, ir.DataType.UINT8: 8}
_SIGNED = (ir.DataType.INT4, ir.DataType.INT8)


class FuseBlockProducts(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        matrices = [matrix for node in model.graph if (matrix := _matrix(node)) is not None]
        for matrix in matrices:
            _replace_products(model, matrix)
        if matrices:
            model.opset_imports[DOMAIN] = 1
        return ir.passes.PassResult(model, modified=bool(matrices))


@dataclass(frozen=True)
class _Matrix:
    """``stored`` are codes, scales and perhaps zero points [in,out] of the matrix that ``restore`` restores."""

    restore: ir.Node
    stored: tuple[ir.Value, ...]
    weights: tuple[Weight, ...]
    bits: int
    block: int


def _matrix(node: ir.Node) -> _Matrix | None:
    if node.op_type != "DequantizeLinear" or "block_size" not in node.attributes:
        return None
    stored = tuple(value for value in node.inputs if value is not None)
    weights = tuple(value.const_value for value in stored if isinstance(value.const_value, Weight))
    products = all(use.node.op_type == "MatMul" and use.idx == 1 for use in node.outputs[0].uses())
    if len(weights) < len(stored) or not products or weights[0].dtype not in _BITS:
        return None
    bits, block = _BITS[weights[0].dtype], node.attributes["block_size"].as_int()
    return None if weights[0].sizes[0] % block else _Matrix(node, stored, weights, bits, block)


def _replace_products(model: ir.Model, matrix: _Matrix) -> None:
    graph, codes = model.graph, matrix.weights[0]
    inputs, outputs = codes.sizes
    attributes = {
        "K": inputs,
        "N": outputs,
        "bits": matrix.bits,
        "block_size": matrix.block,
        "accuracy_level": _ACCURACY_LEVEL,
    }
    weights = _turned(model, matrix)
    for product in list(matrix.restore.outputs[0].consumers()):
        old = product.outputs[0]
        out = result(f"{old.name}_blocks", old.dtype or ir.DataType.FLOAT, old.shape)
        fused = ir.node(BLOCK_PRODUCT, [product.inputs[0], *weights], attributes, domain=DOMAIN, outputs=[out])
        replace_node(graph, product, [fused])
    graph.remove(matrix.restore, safe=True)
    for value in matrix.stored:
        del graph.initializers[str(value.name)]


def _turned(model: ir.Model, matrix: _Matrix) -> list[ir.Value]:
    """The same weights by output: codes [out,blocks,bytes], scales [out,blocks], zero points [out,bytes]."""
    codes, bits, block = matrix.weights[0], matrix.bits, matrix.block
    outputs, blocks = codes.sizes[1], codes.sizes[0] // block
    signed = codes.dtype in _SIGNED

    def compute() -> tuple[Tensor, ...]:
        made = [weight.make() for weight in matrix.weights]
        turned = [blobs(made[0], codes.sizes, bits, block, signed), made[1].t().contiguous()]
        return *turned, *(turned_zeros(zeros, (blocks, outputs), bits) for zeros in made[2:])

    parts = Parts(compute)
    shapes = ((outputs, blocks, block * bits // 8), (outputs, blocks), (outputs, -(-blocks * bits // 8)))
    kinds = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)
    return [
        add_weight(
            model, f"{value.name}_by_output", Weight(kind, shape, f"{weight.recipe}, by output", parts.part(index))
        )
        for index, (value, weight, kind, shape) in enumerate(
            zip(matrix.stored, matrix.weights, kinds, shapes, strict=False)
        )
    ]


def blobs(codes: Tensor, shape: tuple[int, ...], bits: int, block: int, signed: bool) -> Tensor:
    """Codes [in,out], packed if of 4 bits -> uint8 [out,blocks,bytes], unsigned, with zero in the middle if signed."""
    inputs, outputs = shape
    numbers = unpack_nibbles(codes, shape, signed=False) if bits == 4 else codes.reshape(inputs, outputs)
    by_output = numbers.view(torch.uint8).t().contiguous()
    if signed:
        by_output ^= 1 << (bits - 1)
    return (pack_nibbles(by_output) if bits == 4 else by_output).reshape(outputs, -1, block * bits // 8)


def turned_zeros(zeros: Tensor, shape: tuple[int, int], bits: int) -> Tensor:
    """Zero points [blocks,out], packed if of 4 bits -> uint8 [out,bytes]; a row begins with a byte of its own."""
    blocks, outputs = shape
    numbers = unpack_nibbles(zeros, shape, signed=False) if bits == 4 else zeros.reshape(shape)
    by_output = numbers.view(torch.uint8).t()
    if bits == 8:
        return by_output.contiguous()
    return pack_nibbles(functional.pad(by_output, (0, blocks % 2)).contiguous()).reshape(outputs, -1)
