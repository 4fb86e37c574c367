"""The last stage: PPO on the frozen model's own judgement of what is left.

A draw is a batch of questions, several episodes each, all with the same number of steps and the same targets; then
come ``epochs`` passes over its transitions in minibatches. One step of the loop is one minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.loop import LoopSettings
from grip_edge.calibration.tprl.environment import EnvironmentSettings, PruningEnvironment, Quality, targets
from grip_edge.calibration.tprl.network import TprlScorer, ValueHead, Words
from grip_edge.calibration.tprl.ppo import ppo_loss
from grip_edge.calibration.tprl.rollout import Rollout, roll_out
from grip_edge.calibration.training.batches import Batch
from grip_edge.calibration.training.rewards import check_reward, worth
from grip_edge.calibration.training.setup import Setup
from grip_edge.errors import UserError

_STAGE = 33


@dataclass(frozen=True)
class PpoSettings:
    """No steps, no PPO. ``value_rate`` is the learning rate of the value head alone."""

    loop: LoopSettings = LoopSettings(steps=2400, learning_rate=3e-4, warmup_steps=48)
    value_rate: float = 1e-3
    images: int = 6
    episodes: int = 8
    budgets: tuple[float, ...] = (0.05, 0.1, 0.15, 0.25, 0.333, 0.5)
    epochs: int = 3
    minibatches: int = 4
    gamma: float = 0.99
    decay: float = 0.95
    clip: float = 0.2
    value_weight: float = 0.5
    entropy_weight: float = 0.001
    reward: str = "log_probability"

    def __post_init__(self) -> None:
        check_reward(self.reward)
        if not self.budgets or not all(0 < budget <= 1 for budget in self.budgets):
            raise UserError(f"ppo.budgets are ratios in (0, 1]; got {list(self.budgets)}.")
        if min(self.images, self.episodes, self.epochs, self.minibatches) < 1:
            raise UserError("ppo.images, ppo.episodes, ppo.epochs and ppo.minibatches are at least 1.")

    @property
    def updates_per_draw(self) -> int:
        return self.epochs * self.minibatches


@dataclass(frozen=True)
class Draw:
    """What the updates of one draw share. For each of E episodes: codes [E,N,C] and its words."""

    codes: Tensor
    words: Words
    kept: int
    rollout: Rollout
    order: list[list[int]]
    """Transition numbers of each update's minibatch."""


def improve(
    setup: Setup, scorer: TprlScorer, value_head: ValueHead, settings: PpoSettings, environment: EnvironmentSettings
) -> None:
    """Train ``scorer`` and ``value_head`` in place."""
    current: list[Draw] = []

    def step(number: int) -> tuple[Tensor, dict[str, float]]:
        draw_number, update = divmod(number, settings.updates_per_draw)
        if update == 0:
            current[:] = [draw_episodes(setup, scorer, value_head, settings, environment, draw_number)]
        draw = current[0]
        part = draw.rollout.transitions.rows(draw.order[update])
        seen = scorer.read(draw.codes[part.row], draw.words.rows(part.row), part.share, part.remaining)
        loss, metrics = ppo_loss(
            scorer.keep_logits(seen, part.share),
            value_head(seen, part.remaining),
            part,
            settings.clip,
            settings.value_weight,
            settings.entropy_weight,
        )
        seen_so_far = {"kept": draw.kept, "remaining": round(draw.rollout.remaining, 2)}
        return loss, {"reward": round(draw.rollout.reward, 4), **seen_so_far, **metrics}

    groups: list[dict[str, object]] = [
        {"params": [p for p in scorer.parameters() if p.requires_grad], "lr": settings.loop.learning_rate},
        {"params": list(value_head.parameters()), "lr": settings.value_rate},
    ]
    setup.run_groups("ppo", groups, step, settings.loop, scorer, settings.updates_per_draw)


@torch.no_grad()
def draw_episodes(
    setup: Setup,
    scorer: TprlScorer,
    value_head: ValueHead,
    settings: PpoSettings,
    environment: EnvironmentSettings,
    number: int,
) -> Draw:
    rng = setup.rng(number, _STAGE)
    batch = setup.source.draw(settings.images, rng)
    tokens = setup.vlm.visual_tokens
    kept = max(1, round(float(rng.choice(settings.budgets)) * tokens))
    course = targets(tokens, kept, int(rng.integers(1, environment.max_steps + 1)))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    rows = [row for row in range(len(batch.questions)) for _ in range(settings.episodes)]
    unpruned = worth(setup.vlm, batch, range(len(batch.questions)), batch.visual, settings.reward).cpu()[rows]
    judge = quality_of(setup.vlm, batch, rows, settings.reward)
    codes = scorer.codes(batch.features)[rows]
    words = Words(batch.question_embeds, batch.prompts.question_mask).rows(rows)
    world = PruningEnvironment(judge, unpruned, tokens, environment, generator)
    rollout = roll_out(
        scorer, value_head, codes, words, world, course, environment.discount, settings.gamma, settings.decay,
        generator, settings.episodes,
    )  # fmt: skip
    return Draw(codes, words, kept, rollout, _minibatches(len(rollout.transitions.row), settings, rng))


def quality_of(vlm: FrozenVlm, batch: Batch, rows: list[int], reward: str) -> Quality:
    """The reward of answering question ``rows[e]`` from what remains in episode e."""

    def quality(remaining: Tensor) -> Tensor:
        kept = [batch.visual[row][mask] for row, mask in zip(rows, remaining.to(batch.visual.device), strict=True)]
        return worth(vlm, batch, rows, kept, reward).cpu()

    return quality


def _minibatches(transitions: int, settings: PpoSettings, rng: np.random.Generator) -> list[list[int]]:
    """Every epoch visits each transition once, in an order of its own."""
    epochs = (np.array_split(rng.permutation(transitions), settings.minibatches) for _ in range(settings.epochs))
    return [part.tolist() for epoch in epochs for part in epoch]
