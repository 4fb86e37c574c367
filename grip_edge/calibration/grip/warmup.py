"""Warm-up: the scorer learns to rank tokens as the frozen model attends to them, and to prefer diverse ones.

    loss = (1 - w) KL(attention || softmax(scores)) + w KL(label / K || softmax(scores)),   K drawn anew at each step

The attention is the model's own deep text-to-vision attention (TwigVLM++). The diversity label is ours (no published
method is known to use one; DivPrune's criterion stood model): K tokens, picked greedily by attention times distance to
those already picked. ``diversity_weight`` w is 0 by default, which leaves the attention alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from grip_edge.calibration.loop import LoopSettings
from grip_edge.calibration.scorer_interface import Scorer
from grip_edge.calibration.training.setup import Setup
from grip_edge.errors import UserError

_STAGE = 21


@dataclass(frozen=True)
class WarmupSettings:
    """No steps, no warm-up."""

    loop: LoopSettings = LoopSettings(steps=400, learning_rate=2e-3, warmup_steps=50)
    images: int = 12
    question_share: float = 0.3
    """Weight of the question tokens' attention in the target; the rest is the last prompt token's."""
    first_layer: int = 2
    """Decoder layers from here on make the target."""
    diversity_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.diversity_weight <= 1 or not 0 <= self.question_share <= 1:
            raise UserError(
                "warmup.diversity_weight and warmup.question_share are shares in [0, 1]; "
                f"got {self.diversity_weight} and {self.question_share}."
            )


def warm_up(setup: Setup, scorer: Scorer, settings: WarmupSettings) -> None:
    """Train ``scorer`` in place."""

    def step(number: int) -> tuple[Tensor, dict[str, float]]:
        rng = setup.rng(number, _STAGE)
        batch = setup.source.draw(settings.images, rng)
        target = setup.source.cached.attention_target(
            batch.visual, batch.prompts, batch.image_keys, settings.question_share, settings.first_layer
        )
        kept = int(rng.integers(1, setup.vlm.visual_tokens + 1))
        scores = batch.scores(scorer, kept).log_softmax(-1)
        loss = F.kl_div(scores, target, reduction="batchmean")
        weight = settings.diversity_weight
        if weight > 0:
            label = diverse(target, batch.features, kept).float() / kept
            loss = (1 - weight) * loss + weight * F.kl_div(scores, label, reduction="batchmean")
        return loss, {}

    setup.run("warmup", scorer.parameters(), step, settings.loop, scorer)


def diverse(attention: Tensor, features: Tensor, kept: int) -> Tensor:
    """Marks ``kept`` tokens in each row: attention [R,N], features [R,N,Dv] -> bool [R,N].

    The first is the one most attended to; each next has the largest product of its attention and its cosine distance
    to the nearest token already picked.
    """
    unit = F.normalize(features, dim=-1)
    picked = torch.zeros_like(attention, dtype=torch.bool)
    distance = torch.ones_like(attention)
    rows = torch.arange(len(attention), device=attention.device)
    for _ in range(kept):
        best = (attention * distance).masked_fill(picked, -1.0).argmax(dim=-1)
        picked[rows, best] = True
        cosine = (unit @ unit[rows, best][..., None])[..., 0]
        distance = torch.minimum(distance, (1 - cosine).clamp_min(0))
    return picked
