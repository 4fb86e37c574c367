"""References: the exact chance of a wrong rejection, by enumeration; hand-made measurements for the choice."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge.calibration.budget_choice import Measured, accepted, choose, lower_bound, p_value
from grip_edge.errors import UserError


def measured(kept: int, wrong: int, of: int, ttft_ms: float, unpruned: bool = False) -> Measured:
    agreement = np.array([0.0] * wrong + [1.0] * (of - wrong))
    return Measured(kept, agreement, np.full(20, ttft_ms), unpruned)


@pytest.mark.parametrize("n", [5, 40, 200])
@pytest.mark.parametrize("limit", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("level", [0.05, 0.2])
def test_a_promise_that_does_not_hold_is_hardly_ever_accepted(n: int, limit: float, level: float) -> None:
    """All images alike and the true loss just at the limit: the worst case of the hypothesis."""
    chance = 0.0
    for wrong in range(n + 1):
        losses = np.array([1.0] * wrong + [0.0] * (n - wrong))
        if p_value(losses, limit) <= level:
            chance += math.comb(n, wrong) * limit**wrong * (1 - limit) ** (n - wrong)
    assert chance <= level


def test_enough_images_are_convincing_and_few_are_not() -> None:
    assert p_value(np.zeros(1000), 0.01) < 0.05
    assert p_value(np.zeros(10), 0.01) > 0.5
    assert p_value(np.full(1000, 0.02), 0.01) == 1.0
    assert p_value(np.zeros(3), 1.0) == 0.0, "less than nothing cannot agree"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_the_p_value_falls_as_the_limit_rises(losses: list[float], first: float, second: float) -> None:
    low, high = sorted((first, second))
    values = np.array(losses)
    assert p_value(values, high) <= p_value(values, low) + 1e-9
    assert 0 <= p_value(values, low) <= 1


def test_the_lower_bound_is_where_the_test_turns() -> None:
    agreement = np.array([1.0] * 285 + [0.0] * 15)
    low = lower_bound(agreement, 0.95)
    assert 0.9 < low < 0.95
    assert p_value(1 - agreement, 1 - (low - 1e-6)) <= 0.05
    assert p_value(1 - agreement, 1 - (low + 1e-6)) > 0.05


def test_testing_stops_at_the_first_budget_that_fails() -> None:
    budgets = [measured(10, 0, 300, 1), measured(20, 200, 300, 2), measured(40, 0, 300, 3)]
    assert [one.kept_tokens for one in accepted(budgets, 0.9, 0.95)] == [40]


BUDGETS = [
    measured(14, 60, 500, 12.0),
    measured(36, 10, 500, 14.0),
    measured(72, 2, 500, 16.0),
    measured(144, 0, 500, 20.0, unpruned=True),
]


def test_the_smallest_budget_that_agrees_enough() -> None:
    assert choose(BUDGETS, 0.95, None, 0.95).kept_tokens == 36
    assert choose(BUDGETS, 0.80, None, 0.95).kept_tokens == 14
    assert choose(BUDGETS, 1.0, None, 0.95).kept_tokens == 144, "all tokens agree by definition"


def test_the_largest_budget_that_is_fast_enough() -> None:
    assert choose(BUDGETS, None, 15.0, 0.95).kept_tokens == 36
    assert choose(BUDGETS, 0.80, 15.0, 0.95).kept_tokens == 14


def test_promises_that_cannot_be_kept_say_why() -> None:
    with pytest.raises(UserError, match=r"keeping 14 tokens takes 12.0 ms"):
        choose(BUDGETS, None, 5.0, 0.95)
    with pytest.raises(UserError, match=r"takes 36 tokens and 14.0 ms .* more than 13 ms"):
        choose(BUDGETS, 0.95, 13.0, 0.95)
    with pytest.raises(UserError, match=r"with 72 tokens 99.6% do, at least 9\d\.\d% .* from 500 images"):
        choose(BUDGETS[:3], 0.999, None, 0.95)
