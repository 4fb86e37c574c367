"""References: hand-computed advantages and surrogate losses, the curriculum's formula, brute-force rewards."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from grip_edge.calibration.grip.grpo import GrpoSettings, advantages, budget_at, policy_loss


def test_advantages_are_normalised_in_each_group() -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0], [10.0, 10.0, 10.0]])
    found = advantages(rewards, spread_floor=0.0)
    assert found[0].tolist() == pytest.approx([-1 / 1.0001, 0.0, 1 / 1.0001], abs=1e-6)
    assert found[1].tolist() == [0.0, 0.0, 0.0], "a group of equal rewards teaches nothing"


def test_a_group_of_nearly_equal_rewards_counts_for_little() -> None:
    rewards = torch.tensor([[-3.0, 0.0, 3.0], [-0.03, 0.0, 0.03]])
    found = advantages(rewards, spread_floor=0.1)
    assert found[0, 2].item() == pytest.approx(3 / 3.1001)
    assert found[1, 2].item() == pytest.approx(0.03 / 0.1301)


def test_on_policy_the_ratio_is_one_and_the_gradient_is_reinforce() -> None:
    log_prob = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    advantage = torch.tensor([[0.5, -1.5]])
    loss = policy_loss(log_prob, log_prob.detach(), advantage, clip=0.2)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.5)
    assert log_prob.grad is not None
    assert log_prob.grad.tolist() == [[-0.25, 0.75]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective"), [(1.5, 1.0, 1.2), (1.5, -1.0, -1.5), (0.5, 1.0, 0.5), (0.5, -1.0, -0.8)]
)
def test_clipping_is_pessimistic(ratio: float, advantage: float, objective: float) -> None:
    loss = policy_loss(torch.tensor([[math.log(ratio)]]), torch.zeros(1, 1), torch.tensor([[advantage]]), clip=0.2)
    assert float(loss) == pytest.approx(-objective, abs=1e-6)


def test_the_curriculum_moves_to_the_smallest_budget() -> None:
    settings = GrpoSettings(budgets=(0.1, 0.5), curriculum=4.0)
    rng = np.random.default_rng(0)
    early = [budget_at(0.0, settings, 100, rng) for _ in range(4000)]
    late = [budget_at(1.0, settings, 100, rng) for _ in range(4000)]
    assert set(early) == {10, 50}
    assert np.mean(np.array(early) == 10) == pytest.approx(0.5, abs=0.03)
    expected = 1 / (1 + math.exp(-4.0 * 0.5))
    assert np.mean(np.array(late) == 10) == pytest.approx(expected, abs=0.03)
