"""Learning from demonstrations: the policy imitates how a known ranking would prune step by step.

The ranking is where the frozen model looks for the answer, as in GRIP's warm-up, or that of a scorer that is trained
already. A demonstration starts from the tokens that the ranking has left so far and keeps the best of them; the loss
is the negative log-likelihood of that action (binary cross-entropy, with the discount of the step).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from grip_edge.calibration.loop import LoopSettings
from grip_edge.calibration.scorer_interface import Scorer
from grip_edge.calibration.tprl.environment import EnvironmentSettings, action_log_prob, targets
from grip_edge.calibration.tprl.network import TprlScorer, Words
from grip_edge.calibration.training.batches import Batch
from grip_edge.calibration.training.setup import Setup

_STAGE = 32


@dataclass(frozen=True)
class DemonstrationSettings:
    """No steps, no demonstrations. ``question_share`` and ``first_layer`` as in GRIP's warm-up."""

    loop: LoopSettings = LoopSettings(steps=400, learning_rate=2e-3, warmup_steps=50)
    images: int = 12
    question_share: float = 0.3
    first_layer: int = 2
    teacher: str | None = None
    """Folder of a trained scorer whose ranking is imitated; None: the model's attention."""


def learn_from_demonstrations(
    setup: Setup,
    scorer: TprlScorer,
    settings: DemonstrationSettings,
    environment: EnvironmentSettings,
    teacher: Scorer | None,
) -> None:
    """Train ``scorer`` in place."""

    def step(number: int) -> tuple[Tensor, dict[str, float]]:
        rng = setup.rng(number, _STAGE)
        batch = setup.source.draw(settings.images, rng)
        before, after, kept, past = _moments(len(batch.questions), setup.vlm.visual_tokens, environment.max_steps, rng)
        ranking = _ranking(setup, batch, settings, teacher, kept)
        device = ranking.device
        remaining, label = best_of(ranking, before.to(device)), best_of(ranking, after.to(device))
        share = (after / before).float().to(device)
        words = Words(batch.question_embeds, batch.prompts.question_mask)
        logits = scorer.keep_logits(scorer.read(scorer.codes(batch.features), words, share, remaining), share)
        discount = (environment.discount**past).float().to(device)[:, None]
        log_prob = action_log_prob(logits, label, discount)
        right = ((logits > 0) == label)[remaining].float().mean()
        return -log_prob[remaining].mean(), {"imitated": round(float(right), 4)}

    parameters = [p for p in scorer.parameters() if p.requires_grad]
    setup.run("demonstrations", parameters, step, settings.loop, scorer)


def _moments(rows: int, tokens: int, max_steps: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A step of a random course for each row: tokens before and after it, tokens at the end, steps past; int64 [R]."""
    found = []
    for _ in range(rows):
        steps = int(rng.integers(1, max_steps + 1))
        course = (tokens, *targets(tokens, int(rng.integers(1, tokens + 1)), steps))
        at = int(rng.integers(steps))
        found.append((course[at], course[at + 1], course[-1], at))
    before, after, kept, past = torch.tensor(found).T
    return before, after, kept, past


@torch.no_grad()
def _ranking(
    setup: Setup, batch: Batch, settings: DemonstrationSettings, teacher: Scorer | None, kept: Tensor
) -> Tensor:
    """[R,N], higher is kept longer; ``kept`` [R] is what a teacher is told."""
    if teacher is not None:
        return batch.scores(teacher, kept)
    return setup.source.cached.attention_target(
        batch.visual, batch.prompts, batch.image_keys, settings.question_share, settings.first_layer
    )


def best_of(ranking: Tensor, count: Tensor) -> Tensor:
    """Marks the ``count`` [R] best of each row of [R,N] -> bool [R,N]."""
    place = ranking.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return place < count[:, None]
