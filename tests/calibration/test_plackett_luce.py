"""Reference: enumeration of every ordered draw for small N, and finite differences for the gradient."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from grip_edge.calibration.plackett_luce import draw, log_prob


def enumerated(scores: list[float], order: tuple[int, ...]) -> float:
    """The probability of one ordered draw, straight from the definition."""
    left = list(range(len(scores)))
    probability = 1.0
    for index in order:
        probability *= math.exp(scores[index]) / sum(math.exp(scores[i]) for i in left)
        left.remove(index)
    return probability


@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_log_prob_equals_enumeration_and_sums_to_one(kept: int) -> None:
    scores = [0.3, -1.2, 2.0, 0.0]
    orders = list(itertools.permutations(range(4), kept))
    found = log_prob(torch.tensor([scores], dtype=torch.float64), torch.tensor(orders)[None])[0].exp()
    expected = torch.tensor([enumerated(scores, order) for order in orders], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    assert float(found.sum()) == pytest.approx(1.0)


def test_draws_follow_the_enumerated_distribution() -> None:
    scores = torch.tensor([[0.5, -0.5, 1.0]])
    drawn = draw(scores, 2, 40_000, torch.Generator().manual_seed(0), greedy_first=False)[0]
    for order in itertools.permutations(range(3), 2):
        share = float((drawn == torch.tensor(order)).all(dim=1).float().mean())
        assert share == pytest.approx(enumerated(scores[0].tolist(), order), abs=0.01), order


def test_the_first_of_a_group_is_the_greedy_choice() -> None:
    scores = torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
    drawn = draw(scores, 4, 8, torch.Generator().manual_seed(2))
    assert torch.equal(drawn[:, 0], scores.topk(4).indices)
    assert not torch.equal(drawn[:, 1], drawn[:, 0])


@pytest.mark.parametrize("kept", [1, 3, 6])
def test_the_gradient_equals_finite_differences(kept: int) -> None:
    generator = torch.Generator().manual_seed(kept)
    scores = torch.randn(2, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    order = draw(scores, kept, 3, generator)
    assert torch.autograd.gradcheck(lambda s: log_prob(s, order), (scores,))


def test_extreme_scores_stay_finite() -> None:
    scores = torch.tensor([[1e4, -1e4, 0.0, 50.0]], requires_grad=True)
    order = torch.tensor([[[0, 3], [1, 2]]])
    found = log_prob(scores, order)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
