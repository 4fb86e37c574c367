"""What a number format does to a layer's weights and inputs, in fp32: the arithmetic of the passes without graphs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from grip_edge.export.quantise import quantise_blocks, quantise_columns, restore_blocks, restore_columns
from grip_edge.manifest import WeightFormats
from grip_edge.weight_blocks import INT8_BLOCK, fitting_block

_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Rounding:
    """``scheme`` as in ``precision``; the int4 fields count for int4 only. ``fixed_scales``: one scale for all
    inputs of a layer, where ONNX Runtime makes one per run, and 8-bit weights per output, not in blocks.
    """

    scheme: str
    int4_block: int
    int4_symmetric: bool
    fixed_scales: bool = False

    @classmethod
    def of(cls, scheme: str, formats: WeightFormats, fixed_scales: bool = False) -> Rounding:
        return cls(scheme, formats.int4_block or 0, bool(formats.int4_symmetric), fixed_scales)

    @property
    def gains_from_rescaling(self) -> bool:
        """Rounding of floats is relative, and 8 bits per block are fine enough."""
        return self.scheme in ("int8", "int4") or (self.fixed_scales and self.scheme == "int8-weight")

    @property
    def has_fixed_range(self) -> bool:
        return self.fixed_scales and self.scheme == "int8"

    def weight(self, weight: Tensor) -> Tensor:
        """[in,out] as stored and restored."""
        shape = (weight.shape[0], weight.shape[1])
        if self.scheme == "int8" or (self.fixed_scales and self.scheme == "int8-weight"):
            return restore_columns(*quantise_columns(weight))
        if self.scheme == "int8-weight":
            block = fitting_block(shape[0], INT8_BLOCK)
            return restore_blocks(quantise_blocks(weight, 8, block, True), shape, 8, block)
        if self.scheme == "int4":
            block = fitting_block(shape[0], self.int4_block)
            return restore_blocks(quantise_blocks(weight, 4, block, self.int4_symmetric), shape, 4, block)
        if self.scheme in _HALVES:
            return weight.to(_HALVES[self.scheme]).float()
        return weight

    def inputs(self, rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Rows of a tensor whose values lie between ``low`` and ``high``, as the product sees them.

        Only W8A8 rounds them per tensor (DynamicQuantizeLinear's rule, or about 0); per block it is much finer.
        """
        if self.scheme != "int8":
            return rows
        if self.has_fixed_range:
            step = torch.maximum(low.abs(), high.abs()).clamp_min(1e-9) / 127
            return (rows / step).round().clamp(-127, 127) * step
        low, high = low.clamp_max(0.0), high.clamp_min(0.0)
        step = (high - low) / 255
        if not float(step):
            return rows
        zero = (-low / step).round().clamp(0, 255)
        return ((rows / step).round() + zero).clamp(0, 255).sub(zero) * step
