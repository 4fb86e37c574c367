"""Proximal policy optimisation (1707.06347) of the keep decisions.

Every remaining token's decision is an action of its own with the advantage of its step, and its own clipped ratio: the
ratio of a whole step is a product of hundreds, which leaves the clipping range at the first update. Decisions on
tokens that are gone count for nothing. Policy, value and entropy form one loss and one backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from grip_edge.calibration.tprl.environment import action_log_prob, entropy


@dataclass(frozen=True)
class Transitions:
    """P steps of episodes: ``row`` [P] the number of the episode, ``remaining`` and ``action`` bool [P,N],
    ``share`` [P] of the remaining tokens to keep, ``discount`` [P], ``old_log_prob`` [P,N], ``advantage`` and
    ``returns`` [P].
    """

    row: Tensor
    remaining: Tensor
    share: Tensor
    discount: Tensor
    action: Tensor
    old_log_prob: Tensor
    advantage: Tensor
    returns: Tensor

    def rows(self, numbers: Sequence[int]) -> Transitions:
        return Transitions(**{field.name: getattr(self, field.name)[list(numbers)] for field in fields(self)})


def gae(rewards: Tensor, values: Tensor, gamma: float, decay: float) -> Tensor:
    """Generalised advantage estimation (1506.02438, equation 16) of episodes that end after T steps.

    rewards and values [T,R], values of the states acted in; the state after the last step is worth nothing -> [T,R].
    """
    advantages = torch.zeros_like(rewards)
    following_value = torch.zeros_like(rewards[0])
    following_advantage = torch.zeros_like(rewards[0])
    for step in reversed(range(len(rewards))):
        surprise = rewards[step] + gamma * following_value - values[step]
        following_advantage = surprise + gamma * decay * following_advantage
        advantages[step] = following_advantage
        following_value = values[step]
    return advantages


def ppo_loss(
    logits: Tensor, values: Tensor, old: Transitions, clip: float, value_weight: float, entropy_weight: float
) -> tuple[Tensor, dict[str, float]]:
    """logits [P,N] and values [P] of the present policy in the states of ``old``."""
    present = old.remaining
    discount = old.discount[:, None]
    ratio = (action_log_prob(logits, old.action, discount) - old.old_log_prob)[present].exp()
    advantage = old.advantage[:, None].expand_as(logits)[present]
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
    value_loss = (values - old.returns).square().mean()
    spread = entropy(logits, discount)[present].mean()
    loss = -surrogate + value_weight * value_loss - entropy_weight * spread
    clipped = ((ratio - 1).abs() > clip).float().mean()
    return loss, {
        "value_loss": round(float(value_loss.detach()), 4),
        "entropy": round(float(spread.detach()), 4),
        "clipped": round(float(clipped), 4),
    }
