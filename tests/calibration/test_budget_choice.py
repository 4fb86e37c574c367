"""References: the exact chance of a wrong rejection, by enumeration; hand-made measurements for the choice."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge.calibration.budget_choice import Measured, accepted, choose, lower_bound, p_value
from grip_edge.errors import UserError


def measured(kept: int, wrong: int, of: int, ttft_ms: float, unpruned: bool = False) -> Measured:
    agreement = np.random.default_rng(0).permutation([0.0] * wrong + [1.0] * (of - wrong))
    return Measured(kept, agreement, np.full(20, ttft_ms), unpruned)


# Losses at the limit on average: all or nothing, and shares of an image's answers.
WORST = {
    "rare": ([0.0, 1.0], [0.95, 0.05], 0.05),
    "even": ([0.0, 1.0], [0.5, 0.5], 0.5),
    "shares": ([0.0, 0.2, 1.0], [0.8, 0.1, 0.1], 0.12),
}


@pytest.mark.parametrize("kind", list(WORST))
@pytest.mark.parametrize("level", [0.05, 0.2])
def test_a_promise_that_does_not_hold_is_hardly_ever_accepted(kind: str, level: float) -> None:
    """Every sequence of eight images, weighted by its chance."""
    values, chances, limit = WORST[kind]
    wrong = 0.0
    for picked in itertools.product(range(len(values)), repeat=8):
        if p_value(np.array([values[one] for one in picked]), limit, level) <= level:
            wrong += math.prod(chances[one] for one in picked)
    assert wrong <= level


def test_the_test_has_power() -> None:
    """Not far above the exact test of all-or-nothing losses, whose p-value without a failure is (1 - limit) ** n."""
    exact = math.ceil(math.log(0.05) / math.log(0.98))
    assert p_value(np.zeros(2 * exact), 0.02, 0.05) <= 0.05
    assert p_value(np.zeros(exact - 1), 0.02, 0.05) > 0.05
    assert p_value(np.full(1000, 0.02), 0.01, 0.05) > 0.5
    assert p_value(np.zeros(3), 1.0, 0.05) == 0.0, "less than nothing cannot agree"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_the_p_value_falls_as_the_limit_rises(losses: list[float], first: float, second: float) -> None:
    low, high = sorted((first, second))
    values = np.array(losses)
    assert p_value(values, high, 0.05) <= p_value(values, low, 0.05) + 1e-9
    assert 0 <= p_value(values, low, 0.05) <= 1


def test_the_lower_bound_is_where_the_test_turns() -> None:
    agreement = np.random.default_rng(0).permutation([1.0] * 285 + [0.0] * 15)
    low = lower_bound(agreement, 0.95)
    assert 0.9 < low < 0.95
    assert p_value(1 - agreement, 1 - (low - 1e-6), 0.05) <= 0.05
    assert p_value(1 - agreement, 1 - (low + 1e-6), 0.05) > 0.05


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
