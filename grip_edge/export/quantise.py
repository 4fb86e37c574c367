"""Round-to-nearest quantisation of one matrix: codes, scales and zero points, as the passes store them.

    columns   int8, one scale per output: what an integer matrix product wants (W8A8)
    blocks    4 or 8 bits, one scale per block of inputs and output: weights alone, restored before the product
    rows      int8, one scale per block of a row: embedding tables

Matrices come in any float type and are widened to fp32 piece by piece, so that no fp32 copy of the whole exists.
A restored weight is (code - zero point) * scale, and differs from the original by at most half a scale.
Not here: better rounding than to nearest; choosing what to quantise (``precision``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# Elements of a matrix that are fp32 at the same time: what a core's cache holds.
_PIECE_ELEMENTS = 1 << 18


def quantise_columns(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[in,out] -> codes int8 [in,out] in -127..127, scales fp32 [out]."""
    largest = torch.zeros(weight.shape[1])
    for _, piece in _pieces(weight, 1):
        torch.maximum(largest, piece.abs().amax(dim=0), out=largest)
    scales = _never_zero(largest / 127)
    codes = torch.empty(weight.shape, dtype=torch.int8)
    for rows, piece in _pieces(weight, 1):
        codes[rows] = piece.div_(scales).round_().clamp_(-127, 127).to(torch.int8)
    return codes, scales


def quantise_blocks(weight: Tensor, bits: int, block: int, symmetric: bool) -> tuple[Tensor, ...]:
    """[in,out] -> codes, scales fp32 [ceil(in / block), out] and, unless symmetric, zero points of the scales' shape.

    Codes are signed (int8) when symmetric and unsigned (uint8) else; 4-bit codes and zero points come packed.
    """
    inputs, outputs = weight.shape
    code_type = torch.int8 if symmetric else torch.uint8
    codes = torch.empty((inputs, outputs), dtype=code_type)
    scales = torch.empty((-(-inputs // block), outputs))
    zeros = torch.empty(scales.shape, dtype=code_type)
    for rows, piece in _pieces(weight, block):
        blocks = _blocked(piece, block)
        where = slice(rows.start // block, rows.start // block + blocks.shape[0])
        piece_codes, scales[where], zeros[where] = _code_blocks(blocks, bits, symmetric)
        codes[rows] = piece_codes.flatten(0, 1)[: piece.shape[0]].to(code_type)
    stored = [codes, scales] if symmetric else [codes, scales, zeros]
    return tuple(pack_nibbles(part) if bits == 4 and part.dtype == code_type else part for part in stored)


def quantise_rows(table: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """[rows,width] -> codes int8 [rows,width], scales fp32 [rows, ceil(width / block)]."""
    width = table.shape[1]
    codes = torch.empty(table.shape, dtype=torch.int8)
    scales = torch.empty((table.shape[0], -(-width // block)))
    for rows, piece in _pieces(table, 1):
        blocks = _blocked(piece.t().contiguous(), block)
        piece_codes, piece_scales, _ = _code_blocks(blocks, 8, symmetric=True)
        codes[rows] = piece_codes.flatten(0, 1)[:width].t().to(torch.int8)
        scales[rows] = piece_scales.t()
    return codes, scales


def restore_columns(codes: Tensor, scales: Tensor) -> Tensor:
    """What ``quantise_columns`` made, in fp32 again: [in,out]."""
    return codes.float().mul_(scales)


def restore_blocks(parts: tuple[Tensor, ...], shape: tuple[int, int], bits: int, block: int) -> Tensor:
    """What ``quantise_blocks`` made of a matrix of that shape, in fp32 again: [in,out]."""
    codes, scales, *zeros = parts
    if bits == 4:
        codes = unpack_nibbles(codes, shape, signed=not zeros)
    restored = codes.float().reshape(shape)
    if zeros:
        stored = unpack_nibbles(zeros[0], tuple(scales.shape), signed=False) if bits == 4 else zeros[0]
        restored -= _spread(stored.float().reshape(scales.shape), block, shape[0])
    return restored.mul_(_spread(scales, block, shape[0]))


def unpack_nibbles(packed: Tensor, shape: tuple[int, ...], signed: bool) -> Tensor:
    """The reverse of ``pack_nibbles``: int8 codes of that shape."""
    flat = torch.stack([packed & 15, packed >> 4], dim=1).reshape(-1)[: math.prod(shape)].to(torch.int8)
    return (torch.where(flat > 7, flat - 16, flat) if signed else flat).reshape(shape)


def pack_nibbles(codes: Tensor) -> Tensor:
    """4-bit codes in one byte each -> flat uint8 with two per byte, the first in the lower half."""
    flat = codes.reshape(-1).view(torch.uint8)
    low, high = flat[0::2] & 15, flat[1::2]
    low[: high.numel()] |= high << 4
    return low


def _code_blocks(blocks: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor, Tensor]:
    """[blocks,block,out] -> codes as floats, scales [blocks,out], zero points [blocks,out] as floats."""
    top = 2**bits - 1
    if symmetric:
        # The largest weight lies half a step beyond the last code: it still rounds to within half a step,
        # and the step is smaller than if a code were spent on it.
        scales = _never_zero(blocks.abs().amax(dim=1) / (top / 2))
        codes = blocks.div_(scales[:, None]).round_().clamp_(-(top + 1) / 2, (top - 1) / 2)
        return codes, scales, torch.zeros_like(scales)
    low, high = blocks.amin(dim=1).clamp_(max=0), blocks.amax(dim=1).clamp_(min=0)
    scales = _never_zero((high - low) / top)
    zeros = (-low / scales).round_().clamp_(0, top)
    codes = blocks.div_(scales[:, None]).round_().add_(zeros[:, None]).clamp_(0, top)
    return codes, scales, zeros


def _blocked(piece: Tensor, block: int) -> Tensor:
    """[rows,out] -> [ceil(rows / block), block, out]; zeros fill the last block, where they change no scale."""
    missing = -piece.shape[0] % block
    blocks: Tensor = F.pad(piece, (0, 0, 0, missing)).unflatten(0, (-1, block))
    return blocks


def _pieces(weight: Tensor, block: int) -> Iterator[tuple[slice, Tensor]]:
    """Consecutive rows in fp32 copies, whole blocks of rows at a time."""
    rows_per_piece = max(1, _PIECE_ELEMENTS // (block * weight.shape[1])) * block
    for start in range(0, weight.shape[0], rows_per_piece):
        rows = slice(start, min(start + rows_per_piece, weight.shape[0]))
        yield rows, weight[rows].to(torch.float32, copy=True)


def _spread(per_block: Tensor, block: int, inputs: int) -> Tensor:
    """[blocks,out] -> [in,out]."""
    return per_block.repeat_interleave(block, dim=0)[:inputs]


def _never_zero(scales: Tensor) -> Tensor:
    """All-zero columns and blocks get scale 1: their codes are zero anyhow."""
    return torch.where(scales > 0, scales, 1.0)
