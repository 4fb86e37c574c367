"""Channels of a layer's input divided where they are made, and its weights multiplied by the same factors.

    x * (norm / s) @ (s * weight)  =  x * norm @ weight

needs    fp32 weights, each named once as a matrix (rows are multiplied) and at most once as a source
leaves   the same function, with the same nodes
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from grip_edge.export.passes.editing import float_weight, set_weight


@dataclass(frozen=True)
class Rescaling:
    """``factors`` fp32 [in], all above 0. See ``accuracy.groups``."""

    matrices: tuple[str, ...]
    source: tuple[str, ...]
    source_axis: int
    factors: Tensor


class RescaleChannels(ir.passes.InPlacePass):
    def __init__(self, rescalings: Collection[Rescaling]) -> None:
        self._rescalings = tuple(rescalings)

    def requires(self, model: ir.Model) -> None:
        for one in self._rescalings:
            length = one.factors.numel()
            if not bool((one.factors > 0).all()) or not bool(torch.isfinite(one.factors).all()):
                raise ir.passes.PreconditionError(f"factors of '{one.matrices[0]}' are not all finite and above 0")
            axes = [(name, 0) for name in one.matrices] + [(name, one.source_axis) for name in one.source]
            for name, axis in axes:
                if float_weight(model, name).sizes[axis] != length:
                    raise ir.passes.PreconditionError(f"'{name}' does not have {length} along axis {axis}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        for one in self._rescalings:
            for name in one.matrices:
                _scale(model, name, one.factors, 0)
            for name in one.source:
                _scale(model, name, 1 / one.factors, one.source_axis)
        return ir.passes.PassResult(model, modified=bool(self._rescalings))


def _scale(model: ir.Model, name: str, factors: Tensor, axis: int) -> None:
    set_weight(model.graph.initializers[name], float_weight(model, name).scaled(factors, axis))
