"""How a quantity grows: a polynomial by least squares, no steeper than the measurements show.

The highest power stays only if its coefficient's 95 % interval leaves out zero; otherwise it goes, and the rest is
fitted anew. So a constant means: no growth that these points show, not that there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Student's t, two-sided 95 %, for 1, 2, ... degrees of freedom
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


@dataclass(frozen=True)
class Growth:
    """Coefficients of x^0, x^1, ... with half their 95 % intervals; what the polynomial misses at the points."""

    coefficients: tuple[float, ...]
    uncertainties: tuple[float, ...]
    residuals: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def degree(self) -> int:
        return len(self.coefficients) - 1

    @property
    def largest_residual(self) -> float:
        return max(abs(residual) for residual in self.residuals)

    @property
    def largest_share(self) -> float:
        """The largest residual relative to the value at its point."""
        return max(abs(residual / value) for residual, value in zip(self.residuals, self.values, strict=True))

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.polynomial.Polynomial(self.coefficients)(x)


def grow(x: Sequence[float], y: Sequence[float], degree: int) -> Growth:
    """A power needs more points than there are coefficients then, and as many places as coefficients."""
    for power in range(min(degree, len(x) - 2, len(set(x)) - 1), 0, -1):
        found = _fitted(x, y, power)
        if abs(found.coefficients[-1]) > found.uncertainties[-1]:
            return found
    return _fitted(x, y, 0)


def _fitted(x: Sequence[float], y: Sequence[float], degree: int) -> Growth:
    values = np.asarray(y, np.float64)
    unit = max(abs(place) for place in x)  # powers of about one keep the system well conditioned
    powers = np.vander(np.asarray(x, np.float64) / unit, degree + 1, increasing=True)
    coefficients = np.linalg.lstsq(powers, values, rcond=None)[0]
    residuals = values - powers @ coefficients
    free = len(values) - degree - 1
    if free:
        variance = float(residuals @ residuals) / free
        errors = np.sqrt(variance * np.diag(np.linalg.inv(powers.T @ powers)))
        uncertainties = _STUDENT[min(free, len(_STUDENT)) - 1] * errors
    else:
        uncertainties = np.full(degree + 1, np.inf)
    scale = unit ** np.arange(degree + 1)
    return Growth(
        tuple((coefficients / scale).tolist()),
        tuple((uncertainties / scale).tolist()),
        tuple(residuals.tolist()),
        tuple(values.tolist()),
    )
