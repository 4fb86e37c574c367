"""Position ids. Reference: written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from grip_edge.runtime.positions import prompt_positions


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("reindexed", [[0, 1, 2, 3, 4, 5]]), ("original", [[0, 1, 2 + 1, 2 + 6, 2 + 9, 2 + 9 + 1]])],
)
def test_written_out(rule: str, expected: list[list[int]]) -> None:
    """Two tokens, then tokens 1 and 6 of 9 visual ones, then two tokens."""
    found = prompt_positions(2, np.array([1, 6]), 2, visual_tokens=9, rule=rule)
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize("rule", ["reindexed", "original"])
def test_without_pruning_both_rules_are_consecutive(rule: str) -> None:
    assert prompt_positions(3, np.arange(5), 4, 5, rule).tolist() == [list(range(12))]
