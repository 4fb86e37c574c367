"""GRPO: group-relative policy optimisation of the choice of K tokens.

draw      G ordered draws of K tokens without replacement (Gumbel top-k), the first of them greedy
reward    how the pruned frozen model answers (``rewards``)
advantage the reward, normalised within the group of G, but groups whose draws are nearly alike count for less
update    clipped ratio of the draw's probability to that at drawing time, its log divided by K, so that large
          budgets do not dominate; optionally KL to the warmed-up policy, and entropy; one or more updates per draw
budgets   drawn at random, the smallest ones ever more often (TwigVLM++)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from grip_edge.calibration import plackett_luce
from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.loop import LoopSettings
from grip_edge.calibration.scorer_interface import Scorer
from grip_edge.calibration.training.batches import Batch
from grip_edge.calibration.training.rewards import check_reward, group_rewards
from grip_edge.calibration.training.setup import Setup
from grip_edge.errors import UserError

_STAGE = 22


@dataclass(frozen=True)
class GrpoSettings:
    """No steps, no GRPO. A step is one update; ``updates_per_draw`` of them use the same draws."""

    loop: LoopSettings = LoopSettings(steps=3000, learning_rate=5e-4, warmup_steps=90)
    images: int = 8
    group: int = 12
    budgets: tuple[float, ...] = (0.05, 0.1, 0.15, 0.25, 0.4)
    curriculum: float = 1.0
    """Ends with P(i) ~ exp(-curriculum * i / len(budgets)), i = 0 the smallest; starts uniform (TwigVLM++)."""
    clip: float = 0.2
    kl_weight: float = 0.0
    entropy_weight: float = 0.0
    reward: str = "log_probability"
    spread_floor: float = 0.1
    """Added to the standard deviation of a group's rewards: where all draws answer well, differences are noise."""
    updates_per_draw: int = 3

    def __post_init__(self) -> None:
        check_reward(self.reward)
        if self.group < 2:
            raise UserError(f"grpo.group compares draws with each other, so it is at least 2; got {self.group}.")
        if not self.budgets or not all(0 < budget <= 1 for budget in self.budgets):
            raise UserError(f"grpo.budgets are ratios in (0, 1]; got {list(self.budgets)}.")
        if self.spread_floor < 0:
            raise UserError(f"grpo.spread_floor is at least 0; got {self.spread_floor}.")
        if self.updates_per_draw < 1:
            raise UserError(f"grpo.updates_per_draw is at least 1; got {self.updates_per_draw}.")


@dataclass(frozen=True)
class Draws:
    """Groups of draws under the policy that ``old_log_prob`` [R,G] is of; ``order`` [R,G,K]."""

    batch: Batch
    kept: int
    order: Tensor
    old_log_prob: Tensor
    rewards: Tensor


def grpo(setup: Setup, scorer: Scorer, settings: GrpoSettings) -> None:
    """Train ``scorer`` in place."""
    reference = copy.deepcopy(scorer)
    draws: list[Draws] = []

    def step(number: int) -> tuple[Tensor, dict[str, float]]:
        if number % settings.updates_per_draw == 0:
            rng = setup.rng(number, _STAGE)
            batch = setup.source.draw(settings.images, rng)
            kept = budget_at(number / settings.loop.steps, settings, setup.vlm.visual_tokens, rng)
            scores = batch.scores(scorer, kept)
            draws[:] = [draw_groups(setup.vlm, batch, kept, scores.detach(), settings, rng)]
        else:
            scores = draws[0].batch.scores(scorer, draws[0].kept)
        drawn = draws[0]
        log_prob = plackett_luce.log_prob(scores, drawn.order) / drawn.kept
        advantage = advantages(drawn.rewards, settings.spread_floor)
        loss = policy_loss(log_prob, drawn.old_log_prob, advantage, settings.clip)
        if settings.kl_weight > 0:
            with torch.no_grad():
                anchor = drawn.batch.scores(reference, drawn.kept).log_softmax(-1)
            loss = loss + settings.kl_weight * F.kl_div(
                anchor, scores.log_softmax(-1), log_target=True, reduction="batchmean"
            )
        if settings.entropy_weight > 0:
            policy = scores.log_softmax(-1)
            loss = loss + settings.entropy_weight * (policy.exp() * policy).sum(-1).mean()
        return loss, _metrics(drawn)

    setup.run("grpo", scorer.parameters(), step, settings.loop, scorer, settings.updates_per_draw)


def draw_groups(
    vlm: FrozenVlm, batch: Batch, kept: int, scores: Tensor, settings: GrpoSettings, rng: np.random.Generator
) -> Draws:
    """Draws from ``scores`` [R,N], and what they are worth."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    order = plackett_luce.draw(scores, kept, settings.group, generator)
    rewards = group_rewards(vlm, batch, order, settings.reward)
    return Draws(batch, kept, order, plackett_luce.log_prob(scores, order) / kept, rewards)


def _metrics(draws: Draws) -> dict[str, float]:
    return {
        "kept": draws.kept,
        "reward": round(float(draws.rewards.mean()), 4),
        "greedy_reward": round(float(draws.rewards[:, 0].mean()), 4),
        "best_reward": round(float(draws.rewards.max(dim=1).values.mean()), 4),
    }


def budget_at(progress: float, settings: GrpoSettings, visual_tokens: int, rng: np.random.Generator) -> int:
    """Tokens to keep in this step; the smallest budgets grow likelier as ``progress`` goes from 0 to 1."""
    ranks = np.arange(len(settings.budgets)) / len(settings.budgets)
    weights = np.exp(-settings.curriculum * progress**2 * ranks)
    return max(1, round(float(rng.choice(settings.budgets, p=weights / weights.sum())) * visual_tokens))


def advantages(rewards: Tensor, spread_floor: float) -> Tensor:
    """Group-normalised, [R,G]; a group whose draws are all alike teaches nothing and gets zeros."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    spread = rewards.std(dim=1, keepdim=True)
    return torch.where(spread > 1e-3, centred / (spread + spread_floor + 1e-4), torch.zeros_like(centred))


def policy_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """The clipped surrogate (PPO, equation 7; GRPO, equation 3), to be minimised."""
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
