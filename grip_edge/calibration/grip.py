"""GRIP training: supervised warm-up, then GRPO over the discrete selection, on a frozen VLM.

    warm-up   KL from the model's own deep text-to-vision attention to softmax(scores), random budgets
    GRPO      Gumbel top-k draws in groups, the greedy draw inside; reward = mean log-probability of the reference
              answer under the pruned frozen model; group-normalised advantage; clipped ratio; optional KL to the
              warm-up policy; log-probability divided by K; budgets drawn with a curriculum to the smallest

GRIP-VLM publishes the two stages and the budget-aware scorer, not their details; those follow TwigVLM++ (reward,
group, curriculum) and CaCoVID (pre-LLM, text-aware). See docs/log.md.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from grip_edge.calibration import plackett_luce
from grip_edge.calibration.attention_targets import layer_attention, normalised
from grip_edge.calibration.data import SceneData
from grip_edge.calibration.frozen_vlm import FrozenVlm, Prompts
from grip_edge.calibration.loop import LoopSettings, run_steps
from grip_edge.calibration.scorer import GripScorer
from grip_edge.calibration.selection import gather_tokens

_SCENES = 1_000_000  # train scenes drawn from; disjoint from validation and test by their seeds


@dataclass(frozen=True)
class WarmupSettings:
    loop: LoopSettings = LoopSettings(steps=400, learning_rate=2e-3, warmup_steps=50)
    images: int = 12
    question_share: float = 0.3
    """Weight of the question tokens' attention in the target; the rest is the last prompt token's."""
    first_layer: int = 2
    """Decoder layers from here on make the target."""


@dataclass(frozen=True)
class GrpoSettings:
    loop: LoopSettings = LoopSettings(steps=500, learning_rate=5e-4, warmup_steps=30)
    images: int = 8
    group: int = 12
    budgets: tuple[float, ...] = (0.05, 0.075, 0.1, 0.15, 0.25, 0.4)
    curriculum: float = 3.0
    """Ends with P(i) ~ exp(-curriculum * i / len(budgets)), i = 0 the smallest; starts uniform (TwigVLM++)."""
    clip: float = 0.2
    kl_weight: float = 0.0
    entropy_weight: float = 0.0


@dataclass(frozen=True)
class Step:
    """What both stages need of one batch: ``features`` [R,N,Dv] fp32, ``visual`` [R,N,D], and the prompts."""

    features: Tensor
    visual: Tensor
    prompts: Prompts
    question_embeds: Tensor

    def scores(self, scorer: GripScorer, kept: int) -> Tensor:
        scores: Tensor = scorer(self.features, self.question_embeds, torch.tensor([kept]), self.prompts.question_mask)
        return scores


def draw_step(vlm: FrozenVlm, data: SceneData, images: int, rng: np.random.Generator) -> Step:
    asked = data.take(rng.integers(0, _SCENES, size=images).tolist())
    features = vlm.features(vlm.pixels(asked.images))
    visual = vlm.visual_embeds(features)
    prompts = vlm.prompts([q.text for q in asked.questions], [q.answer for q in asked.questions])
    rows = torch.tensor(asked.image_of)
    return Step(features[rows].float(), visual[rows], prompts, vlm.question_embeds(prompts).float())


def warm_up(
    vlm: FrozenVlm, scorer: GripScorer, data: SceneData, folder: Path, settings: WarmupSettings, seed: int
) -> None:
    """Train ``scorer`` in place to rank tokens as the frozen model attends to them."""

    def step(number: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, number, 21])
        batch = draw_step(vlm, data, settings.images, rng)
        target = attention_target(vlm, batch, settings)
        kept = int(rng.integers(1, vlm.visual_tokens + 1))
        loss = F.kl_div(batch.scores(scorer, kept).log_softmax(-1), target, reduction="batchmean")
        return loss, {}

    run_steps("warmup", [_group(scorer, settings.loop)], step, settings.loop, folder)


def attention_target(vlm: FrozenVlm, batch: Step, settings: WarmupSettings) -> Tensor:
    """A distribution over the visual tokens for each question, [R,N]."""
    last, question = layer_attention(vlm, batch.visual, batch.prompts)
    deep = slice(settings.first_layer, None)
    share = settings.question_share
    mixed = (1 - share) * normalised(last[deep]).mean(dim=0) + share * normalised(question[deep]).mean(dim=0)
    return normalised(mixed)


def grpo(
    vlm: FrozenVlm,
    scorer: GripScorer,
    data: SceneData,
    folder: Path,
    settings: GrpoSettings,
    seed: int,
    evaluate: Callable[[int], dict[str, float]] | None = None,
) -> None:
    """Train ``scorer`` in place by group-relative policy optimisation, one update per draw."""
    reference = copy.deepcopy(scorer).eval().requires_grad_(False)

    def step(number: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, number, 22])
        batch = draw_step(vlm, data, settings.images, rng)
        kept = budget_at(number / settings.loop.steps, settings, vlm.visual_tokens, rng)
        scores = batch.scores(scorer, kept)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        order = plackett_luce.draw(scores, kept, settings.group, generator)
        rewards = group_rewards(vlm, batch, order)
        log_prob = plackett_luce.log_prob(scores, order) / kept
        loss = policy_loss(log_prob, log_prob.detach(), advantages(rewards), settings.clip)
        if settings.kl_weight > 0:
            anchor = batch.scores(reference, kept).log_softmax(-1)
            loss = loss + settings.kl_weight * F.kl_div(
                anchor, scores.log_softmax(-1), log_target=True, reduction="batchmean"
            )
        if settings.entropy_weight > 0:
            policy = scores.log_softmax(-1)
            loss = loss + settings.entropy_weight * (policy.exp() * policy).sum(-1).mean()
        return loss, {
            "kept": kept,
            "reward": round(float(rewards.mean()), 4),
            "greedy_reward": round(float(rewards[:, 0].mean()), 4),
            "best_reward": round(float(rewards.max(dim=1).values.mean()), 4),
        }

    run_steps("grpo", [_group(scorer, settings.loop)], step, settings.loop, folder, evaluate)


def budget_at(progress: float, settings: GrpoSettings, visual_tokens: int, rng: np.random.Generator) -> int:
    """Tokens to keep in this step; the smallest budgets grow likelier as ``progress`` goes from 0 to 1."""
    ranks = np.arange(len(settings.budgets)) / len(settings.budgets)
    weights = np.exp(-settings.curriculum * progress**2 * ranks)
    return max(1, round(float(rng.choice(settings.budgets, p=weights / weights.sum())) * visual_tokens))


def group_rewards(vlm: FrozenVlm, batch: Step, order: Tensor) -> Tensor:
    """Mean log-probability of the reference answer for each draw; order [R,G,K] -> fp32 [R,G]."""
    questions, group, _ = order.shape
    indices = order.sort(dim=-1).values.flatten(0, 1)
    rows = [row for row in range(questions) for _ in range(group)]
    kept = gather_tokens(batch.visual[rows], indices)
    return vlm.answer_log_prob(kept, batch.prompts.rows(rows)).view(questions, group)


def advantages(rewards: Tensor) -> Tensor:
    """Group-normalised, [R,G]; a group whose draws are all alike teaches nothing and gets zeros."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    spread = rewards.std(dim=1, keepdim=True)
    return torch.where(spread > 1e-3, centred / (spread + 1e-4), torch.zeros_like(centred))


def policy_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """The clipped surrogate (PPO, equation 7; GRPO, equation 3), to be minimised."""
    ratio = (log_prob - old_log_prob).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def _group(scorer: GripScorer, loop: LoopSettings) -> dict[str, object]:
    return {"params": list(scorer.parameters()), "lr": loop.learning_rate}
