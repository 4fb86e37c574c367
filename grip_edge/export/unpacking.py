"""The numbers of a matrix that AWQ or GPTQ packed: codes, scales and zero points per block, as bundles store them.

Blocks follow one another along the inputs. Where GPTQ put inputs into groups by their importance (act-order), the
inputs are sorted by group: ``order`` tells which input comes where, and the layer's input must be sorted alike.
One group for all inputs becomes blocks with the same scale, which is the form that runs fast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from grip_edge.catalog import StoredTensor
from grip_edge.errors import UserError
from grip_edge.export.prequantised import PACKED, PackedMatrix
from grip_edge.export.weights import FloatWeight

# Gives a tensor of the checkpoint as it is stored.
Read = Callable[[StoredTensor], Tensor]

# The output that each nibble of AWQ's numbers holds, lowest first; GPTQ's hold them in order.
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_WIDEST_BLOCKS = (128, 64, 32, 16)


@dataclass(frozen=True)
class Unpacked:
    """``codes`` uint8 [in,out], inputs in the order of the blocks; ``scales`` fp32 and ``zeros`` uint8 [blocks,out]."""

    codes: Tensor
    scales: Tensor
    zeros: Tensor


class PackedWeight(FloatWeight):
    """A weight of a graph that was packed: a float weight to everybody, and its own codes to the int4 pass.

    It starts as [out,in], as linear layers are kept; ``turned`` is [in,out].
    """

    def __init__(
        self, dtype: ir.DataType, matrix: PackedMatrix, recipe: str, read: Read, *, turned: bool = False
    ) -> None:
        outputs, inputs = matrix.shape

        def stored() -> Tensor:
            weight = restore(matrix, read)
            return weight.t().contiguous() if turned else weight

        shape = (inputs, outputs) if turned else (outputs, inputs)
        super().__init__(dtype, shape, f"{recipe}, transposed" if turned else recipe, stored)
        self.turned = turned
        self._matrix, self._recipe, self._read = matrix, recipe, read

    @property
    def block(self) -> int:
        return block_of(self._matrix)

    def transposed(self) -> PackedWeight:
        return PackedWeight(self.dtype, self._matrix, self._recipe, self._read, turned=not self.turned)

    def cast(self, dtype: ir.DataType) -> PackedWeight:
        return PackedWeight(dtype, self._matrix, self._recipe, self._read, turned=self.turned)

    def order(self) -> Tensor | None:
        return input_order(self._matrix, self._read)

    def unpack(self) -> Unpacked:
        return unpack(self._matrix, self._read)


def block_of(matrix: PackedMatrix) -> int:
    """Inputs per scale in the bundle."""
    if matrix.format.group_size != -1:
        return matrix.group_size
    return next((block for block in _WIDEST_BLOCKS if matrix.inputs % block == 0), matrix.inputs)


def input_order(matrix: PackedMatrix, read: Read) -> Tensor | None:
    """int64 [in]: the input that stands at each place; None where they stand in their own order."""
    if matrix.g_idx is None:
        return None
    group_of = read(matrix.g_idx).long()
    groups = matrix.inputs // matrix.group_size
    sizes = torch.bincount(group_of.clamp(0, groups), minlength=groups)
    if bool((group_of < 0).any()) or sizes.tolist() != [matrix.group_size] * groups:
        raise UserError(
            f"{matrix.g_idx.file}: '{matrix.g_idx.name}' does not put {matrix.group_size} inputs into each of {groups} "
            "groups; the file is damaged or of another format."
        )
    order = torch.argsort(group_of, stable=True)
    return None if bool((order == torch.arange(matrix.inputs)).all()) else order


def unpack(matrix: PackedMatrix, read: Read) -> Unpacked:
    gptq = matrix.format.method == "gptq"
    qweight = read(matrix.qweight)
    codes = _nibbles(qweight.t().contiguous()).t() if gptq else _nibbles(qweight)[:, _awq_places(qweight.shape[1])]
    stored_zeros = _nibbles(read(matrix.qzeros))
    if not gptq:
        stored_zeros = stored_zeros[:, _awq_places(matrix.qzeros.shape[1])]
    zeros = stored_zeros.add_(matrix.format.zero_shift).bitwise_and_(15)
    order = input_order(matrix, read)
    codes = codes if order is None else codes[order]
    repeats = matrix.group_size // block_of(matrix)
    scales = read(matrix.scales).float().repeat_interleave(repeats, dim=0)
    return Unpacked(codes.contiguous(), scales, zeros.repeat_interleave(repeats, dim=0))


def restore(matrix: PackedMatrix, read: Read) -> Tensor:
    """The weight in fp32, [out,in]."""
    unpacked, block = unpack(matrix, read), block_of(matrix)
    weight = unpacked.codes.float()
    weight -= unpacked.zeros.float().repeat_interleave(block, dim=0)
    weight *= unpacked.scales.repeat_interleave(block, dim=0)
    order = input_order(matrix, read)
    if order is not None:
        weight = weight[torch.argsort(order)]
    return weight.t().contiguous()


def _nibbles(packed: Tensor) -> Tensor:
    """int32 [rows,n] -> uint8 [rows, 8 * n], lowest nibble first."""
    pairs = packed.contiguous().view(torch.uint8)  # lowest byte first, as in the file
    return torch.stack([pairs & 15, pairs >> 4], dim=2).flatten(1)


def _awq_places(numbers: int) -> Tensor:
    """Where each output is found among AWQ's nibbles: int64 [8 * numbers]."""
    within = torch.argsort(torch.tensor(_AWQ_ORDER))
    return (PACKED * torch.arange(numbers)[:, None] + within).flatten()
