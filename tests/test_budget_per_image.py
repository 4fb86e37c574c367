"""A budget range where each image has its own number of tokens. Reference: the ratios that the range was made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge.budget import Budget, BudgetRange
from grip_edge.errors import BudgetError


@given(
    largest=st.integers(100, 9000),
    share=st.floats(0.01, 1),
    low=st.floats(0.02, 0.5),
    more=st.floats(0, 0.5),
    inside=st.floats(0, 1),
)
def test_a_ratio_within_the_range_is_within_it_for_every_image(
    largest: int, share: float, low: float, more: float, inside: float
) -> None:
    image = max(1, round(share * largest))
    high = min(1.0, low + more)
    ratio = min(max(low + inside * (high - low), low), high)
    allowed = BudgetRange.parse(f"{low!r},{high!r}", largest).for_image(image)
    assert allowed.visual_tokens == image
    assert allowed.resolve(ratio) == Budget(ratio=ratio).kept_tokens(image)
    assert allowed.resolve(1.0) == image


def test_the_range_of_an_image() -> None:
    whole = BudgetRange.parse("0.1,0.5", 2928)
    assert whole.for_image(2928) == whole
    own = whole.for_image(1000)
    assert (own.min_tokens, own.max_tokens) == (100, 501)  # 293 and 1464 of 2928 are 100.07 and 500 of 1000
    with pytest.raises(BudgetError, match=r"Budget 600 keeps 600 of 1000 visual tokens; .* serves 0\.1 to 0\.501"):
        own.resolve(600)
    with pytest.raises(BudgetError, match="Budget 1001 is more than the 1000 visual tokens"):
        own.resolve(1001)
