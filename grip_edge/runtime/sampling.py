"""Which token comes next: the most likely one, or one drawn by temperature and nucleus (top-p) sampling.

Pure functions over logits [V]; the only state is the random generator of a ``Sampler``. Temperature 0 is greedy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grip_edge.errors import BundleError, UserError


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens. ``top_p`` and ``seed`` mean nothing to greedy decoding, so they are refused there."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (self.temperature >= 0.0 and math.isfinite(self.temperature)):
            raise UserError(f"The temperature is 0 (greedy) or a positive number; got {self.temperature}.")
        if not 0.0 < self.top_p <= 1.0:
            raise UserError(f"top-p is in (0, 1]; got {self.top_p}.")
        if self.seed is not None and self.seed < 0:
            raise UserError(f"The seed is 0 or a positive integer; got {self.seed}.")
        if self.temperature == 0.0 and (self.top_p < 1.0 or self.seed is not None):
            option = "top-p" if self.top_p < 1.0 else "a seed"
            raise UserError(f"Greedy decoding has no use for {option}; set a temperature above 0, or leave it out.")


class Sampler:
    """Draws the tokens of one answer; the same seed and logits give the same tokens."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._rng: np.random.Generator | None = None  # making one takes longer than a greedy choice

    @property
    def is_greedy(self) -> bool:
        return self._sampling.temperature == 0.0

    def choose(self, logits: NDArray[np.floating]) -> int:
        """logits [V] -> token id."""
        best = int(np.argmax(logits))
        if math.isnan(logits[best]):  # argmax stops at the first NaN
            raise not_a_number()
        if self.is_greedy:
            return best
        self._rng = self._rng or np.random.default_rng(self._sampling.seed)
        weights = nucleus(softmax(logits, self._sampling.temperature), self._sampling.top_p)
        return int(self._rng.choice(len(weights), p=weights))


def not_a_number() -> BundleError:
    return BundleError("decoder.onnx produced NaN; check the bundle with  grip-edge verify , or use fp32.")


def softmax(logits: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Probabilities [V] of logits [V] / temperature."""
    scaled = logits.astype(np.float64) - float(logits.max())
    weights = np.exp(scaled / temperature)
    return np.asarray(weights / weights.sum())


def nucleus(probabilities: NDArray[np.float64], top_p: float) -> NDArray[np.float64]:
    """The smallest set of most likely tokens whose probabilities reach ``top_p``, renormalised; the rest is 0."""
    order = np.argsort(-probabilities, kind="stable")
    before = np.cumsum(probabilities[order]) - probabilities[order]
    kept = order[before < top_p]
    result = np.zeros_like(probabilities)
    result[kept] = probabilities[kept] / probabilities[kept].sum()
    return result
