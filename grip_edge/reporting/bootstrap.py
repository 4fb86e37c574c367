"""The ratio of two medians with its 95 % percentile-bootstrap interval, from raw samples.

Samples belong to strata (which image and question was asked); each stratum is resampled on its own, since the mix of
questions was fixed, not drawn. The interval covers the noise of requests within each run. It does not cover what makes
one run differ from the next (clocks, heat, other programs): for that, run more than once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Ratio:
    """Of the second median over the first."""

    value: float
    low: float
    high: float


def median_ratio(first: Sequence[NDArray[np.float64]], second: Sequence[NDArray[np.float64]], seed: int = 0) -> Ratio:
    """Each argument is a list of strata with at least one sample each."""
    rng = np.random.default_rng([seed, 51])
    before, after = (float(np.median(np.concatenate(list(strata)))) for strata in (first, second))
    drawn = _medians(second, rng) / _medians(first, rng)
    low, high = np.percentile(drawn, _PERCENTILES)
    return Ratio(after / before, float(low), float(high))


def _medians(strata: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> NDArray[np.float64]:
    """Of ``DRAWS`` resampled sets."""
    drawn = [rng.choice(samples, size=(DRAWS, len(samples))) for samples in strata]
    return np.asarray(np.median(np.concatenate(drawn, axis=1), axis=1), np.float64)
