"""Pruning as a Markov decision process of one to three steps.

    state    which visual tokens remain, the question, and how many may be left after this step
    action   keep or drop, each remaining token by itself; a dropped token never returns
    reward   alpha * (quality after - quality before) + beta * (1 - tokens after / tokens before)

Targets fall geometrically from N to the budget. Of an action that keeps more than its target, the environment drops
the surplus at random: the budget always holds, and keeping too much is no way to do well. (The target is ours; TPRL
leaves the number to beta, at one trade-off per policy.) A keep probability is the policy's times ``discount`` to the
power of the step, as in TPRL, in sampling and in the log-probability alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from grip_edge.errors import UserError

MAX_STEPS = 3

Quality = Callable[[Tensor], Tensor]
"""remaining bool [R,N] -> how well each question is answered from these tokens, fp32 [R]."""


@dataclass(frozen=True)
class EnvironmentSettings:
    alpha: float = 1.0
    beta: float = 0.0
    """TPRL has 0.1. Here the targets hold the budget already, and a reward for dropping more wastes what may stay."""
    discount: float = 0.9
    """Of the keep probability per step (TPRL's code has 0.5, which at the third step forbids to keep half)."""
    max_steps: int = MAX_STEPS

    def __post_init__(self) -> None:
        if not 0 < self.discount <= 1:
            raise UserError(f"environment.discount is in (0, 1]; got {self.discount}.")
        if not 1 <= self.max_steps <= MAX_STEPS:
            raise UserError(f"environment.max_steps is 1 to {MAX_STEPS}; got {self.max_steps}.")


def targets(tokens: int, kept: int, steps: int) -> tuple[int, ...]:
    """Tokens that may be left after each of ``steps``: geometric from ``tokens``, ending with ``kept``."""
    shares = ((kept / tokens) ** (step / steps) for step in range(1, steps + 1))
    return tuple(max(kept, round(tokens * share)) for share in shares)


def keep_log_probs(logits: Tensor, discount: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of keeping and of dropping with keep probability  d * sigmoid(logit)."""
    undiscounted = F.logsigmoid(logits)
    # 1 - d s = (1 - s) + (1 - d) s, each term by its logarithm
    drop = torch.logaddexp(F.logsigmoid(-logits), undiscounted + torch.log1p(-discount))
    return undiscounted + torch.log(discount), drop


def action_log_prob(logits: Tensor, action: Tensor, discount: Tensor) -> Tensor:
    """Of each token's decision: logits [P,N], action bool [P,N] (True: keep), discount [1] or [P,1] -> [P,N]."""
    keep, drop = keep_log_probs(logits, discount)
    return torch.where(action, keep, drop)


def entropy(logits: Tensor, discount: Tensor) -> Tensor:
    """Of each token's decision, in nats: [P,N]."""
    keep, drop = keep_log_probs(logits, discount)
    return -(keep.exp() * keep + drop.exp() * drop)


class PruningEnvironment:
    """R episodes side by side, on the CPU. ``quality`` judges sets of tokens; ``unpruned`` [R] is that of all N."""

    def __init__(
        self, quality: Quality, unpruned: Tensor, tokens: int, settings: EnvironmentSettings, generator: torch.Generator
    ) -> None:
        self._quality = quality
        self._settings = settings
        self._generator = generator
        self.remaining = torch.ones(len(unpruned), tokens, dtype=torch.bool)
        self.quality = unpruned

    def step(self, action: Tensor, target: int) -> Tensor:
        """action bool [R,N] on the remaining tokens -> reward fp32 [R]; ``remaining`` and ``quality`` move on."""
        before, quality = self.remaining.sum(dim=1), self.quality
        self.remaining = self._within(self.remaining & action, target)
        self.quality = self._quality(self.remaining)
        removed = (before - self.remaining.sum(dim=1)) / before.clamp_min(1)
        return self._settings.alpha * (self.quality - quality) + self._settings.beta * removed

    def _within(self, kept: Tensor, target: int) -> Tensor:
        """At most ``target`` of each row, the surplus dropped at random."""
        luck = torch.rand(kept.shape, generator=self._generator).masked_fill(~kept, -1.0)
        chosen = torch.zeros_like(kept).scatter(1, luck.topk(target, dim=1).indices, True)
        return kept & chosen
