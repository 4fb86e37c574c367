"""Draws of K tokens without replacement, and their log-probability (Plackett-Luce).

Adding Gumbel noise to the scores and taking the K largest in order is exactly a draw without replacement in which
each step picks a remaining token with probability proportional to exp(score) (Kool et al. 2019, section 2).
The log-probability of an ordered draw is the sum over steps of  score - logsumexp(scores still in the urn).
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw(scores: Tensor, kept: int, group: int, generator: torch.Generator, greedy_first: bool = True) -> Tensor:
    """scores [B,N] -> ordered draws int64 [B,G,K]. With ``greedy_first`` the first of each group is the K best.

    The noise is drawn on the CPU, so that the draws of a seed do not depend on the device.
    """
    uniform = torch.rand((scores.shape[0], group, scores.shape[1]), generator=generator).to(scores.device)
    noise = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
    if greedy_first:
        noise[:, 0] = 0.0
    return (scores.detach()[:, None] + noise).topk(kept, dim=-1).indices


def log_prob(scores: Tensor, order: Tensor) -> Tensor:
    """Log-probability of ordered draws; scores [B,N], order [B,G,K] -> [B,G]. Differentiable in the scores."""
    batch, group, kept = order.shape
    wide = scores[:, None].expand(batch, group, -1)
    drawn = wide.gather(-1, order)
    left = torch.ones_like(wide, dtype=torch.bool).scatter(-1, order, False)
    never = wide.masked_fill(~left, -torch.inf).logsumexp(dim=-1, keepdim=True)
    remaining = torch.logcumsumexp(drawn.flip(-1), dim=-1).flip(-1)
    if kept < scores.shape[1]:
        remaining = torch.logaddexp(remaining, never)
    return (drawn - remaining).sum(dim=-1)
