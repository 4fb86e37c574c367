"""Rotary positions: the angle per position and pair of dimensions, and how checkpoints stretch it to longer contexts.

    frequency_i = theta ^ (-2i / d);  angle = position * frequency_i;  tables amplitude * cos(angle) and sin(angle)

``Linear`` divides all frequencies; ``Llama3`` only the slow ones, as Llama 3.1 does; ``Yarn`` blends by dimension and
raises the amplitude (2309.00071). They are transformers' rope types of the same names. Its ``dynamic``
type changes nothing within ``max_positions``, which no bundle exceeds. Not here: longrope and rotation of a part of
the dimensions, which are refused (``architecture``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Linear:
    factor: float

    def stretch(self, frequencies: Tensor, theta: float) -> Tensor:
        return frequencies / self.factor

    @property
    def amplitude(self) -> float:
        return 1.0


@dataclass(frozen=True)
class Llama3:
    """Turns longer than ``original_positions / low_factor`` are stretched, shorter than ``.. / high_factor`` kept."""

    factor: float
    low_factor: float
    high_factor: float
    original_positions: int

    def stretch(self, frequencies: Tensor, theta: float) -> Tensor:
        turns = self.original_positions * frequencies / (2 * math.pi)  # within the original context
        kept = ((turns - self.low_factor) / (self.high_factor - self.low_factor)).clamp(0, 1)
        return (1 - kept) * frequencies / self.factor + kept * frequencies

    @property
    def amplitude(self) -> float:
        return 1.0


@dataclass(frozen=True)
class Yarn:
    """Dimensions that turn more than ``beta_fast`` times in the original context are kept, below ``beta_slow``
    stretched, a ramp between; ``truncate`` widens the ramp to whole dimensions.
    """

    factor: float
    original_positions: int
    amplitude: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    def stretch(self, frequencies: Tensor, theta: float) -> Tensor:
        pairs = len(frequencies)
        low, high = self._dimension(self.beta_fast, 2 * pairs, theta), self._dimension(self.beta_slow, 2 * pairs, theta)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * pairs - 1)
        width = high - low or 0.001
        stretched = ((torch.arange(pairs, dtype=torch.float32) - low) / width).clamp(0, 1)
        return stretched * frequencies / self.factor + (1 - stretched) * frequencies

    def _dimension(self, turns: float, head_dim: int, theta: float) -> float:
        """Which pair of dimensions turns so often within the original context."""
        return head_dim * math.log(self.original_positions / (turns * 2 * math.pi)) / (2 * math.log(theta))


@dataclass(frozen=True)
class Rope:
    theta: float
    scaling: Linear | Llama3 | Yarn | None = None

    def tables(self, head_dim: int, positions: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each [positions, head_dim / 2]."""
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
        frequencies, amplitude = 1.0 / self.theta**exponents, 1.0
        if self.scaling is not None:
            frequencies, amplitude = self.scaling.stretch(frequencies, self.theta), self.scaling.amplitude
        angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
        return angles.cos() * amplitude, angles.sin() * amplitude
