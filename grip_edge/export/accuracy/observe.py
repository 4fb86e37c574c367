"""What the values in a float model are like on real questions, and what rounding each linear layer costs there.

For each group of layers (``groups``) that is to be quantised: the relative error that rounding its weights (and, for
W8A8, its inputs) adds to its outputs, plainly and with the rescaling of channels that makes it smallest. For every
layer of the vision tower, projector and decoder: the largest magnitude of any value, beside the end of fp16.

Inputs are kept as a sample of rows; ranges are exact, per question, as dynamic quantisation sees them.
Not covered: values inside the fused attention operator.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from grip_edge.export.accuracy.groups import Group
from grip_edge.export.accuracy.rounding import Rounding
from grip_edge.export.passes.editing import float_weight

FP16_MAX = 65504.0
# A layer counts as safe if the largest value seen stays this far below the end of fp16: other images reach further.
FP16_HEADROOM = 2.0

# Factors that are tried beside none: (largest input ** a) / (largest weight ** b), as SmoothQuant has them, for
# a + b = 1; and (mean input ** a), as AWQ has them, for b = 0.
EXPONENTS = ((0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (0.25, 0.0), (0.5, 0.0), (0.75, 0.0))

_ROWS_PER_GROUP = 256
_SMALLEST = 1e-5
_LAYER = re.compile(r"^.*?layers\.\d+|^[^.]+")


@dataclass(frozen=True)
class GroupFinding:
    """Errors are relative: sum of squared differences of the outputs over their sum of squares. ``largest_input`` is
    the largest magnitude that the group reads, rescaled.
    """

    group: Group
    plain_error: float
    error: float
    exponents: tuple[float, float] | None
    factors: Tensor | None = field(repr=False)
    largest_input: float


@dataclass(frozen=True)
class LayerRange:
    """``largest`` is the largest magnitude of any value; infinite where a value was not a number."""

    layer: str
    largest: float

    @property
    def fits_fp16(self) -> bool:
        return self.largest * FP16_HEADROOM <= FP16_MAX


@dataclass
class _Inputs:
    """What one group reads: per question the range of each channel, and some rows."""

    low: list[Tensor] = field(default_factory=list)
    high: list[Tensor] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)

    def largest(self, factors: Tensor) -> float:
        """Never 0, so that it can be a range."""
        magnitudes = torch.maximum(torch.stack(self.low).abs(), torch.stack(self.high).abs()).amax(dim=0)
        return max(float((magnitudes / factors).max()), _SMALLEST)


class GraphObserver:
    """Watches one graph (``piecewise.Observer``). ``rounding`` is by matrix; matrices without any are left out."""

    def __init__(
        self, model: ir.Model, groups: Sequence[Group], rounding: Mapping[str, Rounding], questions: int, rescale: bool
    ) -> None:
        self._model = model
        self._rounding = rounding
        self._rescale = rescale
        self._groups = {group.input: group for group in groups}
        self._layer_of = _layers(model)
        self._rows_each = max(1, _ROWS_PER_GROUP // questions)
        self._inputs: dict[str, _Inputs] = {}
        self._largest: dict[str, float] = {}
        self.findings: list[GroupFinding] = []

    @property
    def watched(self) -> Collection[str]:
        return {*self._groups, *self._layer_of}

    @property
    def ranges(self) -> tuple[LayerRange, ...]:
        return tuple(LayerRange(layer, largest) for layer, largest in self._largest.items())

    def see(self, name: str, array: NDArray[Any]) -> None:
        layer = self._layer_of.get(name)
        if layer is not None:
            largest = float(np.abs(array).max(initial=0.0))
            largest = largest if np.isfinite(largest) else float("inf")
            self._largest[layer] = max(self._largest.get(layer, 0.0), largest)
        if name in self._groups:
            self._keep(self._inputs.setdefault(name, _Inputs()), torch.from_numpy(array).flatten(0, -2))

    def piece_done(self) -> None:
        """The layers whose inputs have been seen are judged, and the inputs forgotten."""
        for name, inputs in self._inputs.items():
            self.findings.append(self._judge(self._groups[name], inputs))
        self._inputs.clear()

    def _keep(self, inputs: _Inputs, x: Tensor) -> None:
        inputs.low.append(x.amin(dim=0))
        inputs.high.append(x.amax(dim=0))
        chosen = torch.linspace(0, x.shape[0] - 1, min(self._rows_each, x.shape[0])).long()
        inputs.rows.append(x[chosen].clone())

    def _judge(self, group: Group, inputs: _Inputs) -> GroupFinding:
        weights = [float_weight(self._model, name).make().float() for name in group.matrices]
        roundings = [self._rounding[name] for name in group.matrices]
        rows = torch.cat(inputs.rows)
        layers = [(weight, one, rows @ weight) for weight, one in zip(weights, roundings, strict=True)]
        ones = torch.ones(weights[0].shape[0])
        plain = _relative_error(inputs, layers, ones)
        best = GroupFinding(group, plain, plain, None, None, inputs.largest(ones))
        if group.source and self._rescale and all(one.gains_from_rescaling for one in roundings):
            for exponents in EXPONENTS:
                factors = _factors(inputs, weights, *exponents)
                error = _relative_error(inputs, layers, factors)
                if error < best.error:
                    best = GroupFinding(group, plain, error, exponents, factors, inputs.largest(factors))
        return best


def _factors(inputs: _Inputs, weights: Sequence[Tensor], of_input: float, of_weight: float) -> Tensor:
    """Large where inputs are large and weights small; the middle between smallest and largest factor is 1."""
    if of_weight:
        size = torch.maximum(torch.stack(inputs.low).abs(), torch.stack(inputs.high).abs()).amax(dim=0)
    else:
        size = torch.cat(inputs.rows).abs().mean(dim=0)
    weight_size = torch.stack([weight.abs().amax(dim=1) for weight in weights]).amax(dim=0)
    factors = size.clamp_min(_SMALLEST) ** of_input / weight_size.clamp_min(_SMALLEST) ** of_weight
    return factors / (factors.max() * factors.min()).sqrt()


def _relative_error(inputs: _Inputs, layers: Sequence[tuple[Tensor, Rounding, Tensor]], factors: Tensor) -> float:
    """``layers``: weight [in,out], its rounding, and the right output for the sampled rows."""
    error = power = 0.0
    lows = torch.stack([(low / factors).min() for low in inputs.low])
    highs = torch.stack([(high / factors).max() for high in inputs.high])
    for weight, rounding, expected in layers:
        if rounding.has_fixed_range:
            lows, highs = lows.min().expand_as(lows), highs.max().expand_as(highs)
        seen = zip(lows, highs, inputs.rows, strict=True)
        rounded = [rounding.inputs(rows / factors, low, high) for low, high, rows in seen]
        found = torch.cat(rounded) @ rounding.weight(weight * factors[:, None])
        error += float((found - expected).square().sum())
        power += float(expected.square().sum())
    return error / power if power else 0.0


def _layers(model: ir.Model) -> dict[str, str]:
    """The layer of each float value that a node makes: that of the weight which was read last."""
    layers: dict[str, str] = {}
    layer = ""
    for node in model.graph:
        for value in node.inputs:
            found = _LAYER.match(str(value.name)) if value is not None and value.is_initializer() else None
            if found is not None and "." in str(value.name):  # type: ignore[union-attr]
                layer = found.group()
        if layer:
            layers |= {str(out.name): layer for out in node.outputs if out.dtype == ir.DataType.FLOAT}
    return layers
