"""Fits against polynomials that are known, and against the textbook's formulas for a straight line."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scaling.growth import grow

PLACES = [58.0, 115.0, 173.0, 230.0, 346.0, 461.0, 576.0]
NOISE = [0.3, -0.4, 0.1, 0.2, -0.5, 0.4, -0.1]


def noisy(*coefficients: float) -> list[float]:
    return [
        sum(value * place**power for power, value in enumerate(coefficients)) + error
        for place, error in zip(PLACES, NOISE, strict=True)
    ]


@pytest.mark.parametrize("known", [(20.0, 0.6, 0.0004), (20.0, 0.6), (20.0,)])
def test_no_steeper_than_what_is_known(known: tuple[float, ...]) -> None:
    found = grow(PLACES, noisy(*known), 2)
    assert found.degree == len(known) - 1
    for value, found_value, error in zip(known, found.coefficients, found.uncertainties, strict=True):
        assert abs(found_value - value) <= error
    assert found.largest_residual <= 2 * max(abs(error) for error in NOISE)


def test_a_straight_line_has_the_textbooks_slope_and_interval() -> None:
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 4.1, 5.9, 8.4])
    slope = ((x - x.mean()) @ (y - y.mean())) / ((x - x.mean()) @ (x - x.mean()))
    residuals = y - y.mean() - slope * (x - x.mean())
    error = np.sqrt(residuals @ residuals / 2 / ((x - x.mean()) @ (x - x.mean())))
    found = grow(x.tolist(), y.tolist(), 1)
    assert found.coefficients == pytest.approx((y.mean() - slope * x.mean(), slope))
    assert found.uncertainties[1] == pytest.approx(4.30 * error)
    assert found.residuals == pytest.approx(residuals.tolist())
    assert found.largest_share == pytest.approx(np.abs(residuals / y).max())
    assert found(x) == pytest.approx(y - residuals)


@pytest.mark.parametrize("places", [[3.0], [3.0, 4.0], [3.0, 3.0, 4.0, 4.0]])
def test_few_points_show_little(places: list[float]) -> None:
    """Two points lie on any line, two places on any parabola."""
    found = grow(places, [10.0 * place + index % 2 for index, place in enumerate(places)], 2)
    assert found.degree == (1 if len(places) == 4 else 0)
