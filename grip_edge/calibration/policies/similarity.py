"""Measures that several policies share: cosine, min-max, and greedy choice without repetition."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence

_FLAT = 1e-6  # added above and below, as in CDPruner's code: a constant row becomes all ones


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """left [R,N,D], right [R,M,D] -> [R,N,M]."""
    return F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).transpose(1, 2)


def question_cosine(evidence: Evidence) -> Tensor:
    """Cosine of each projected token with each embedded question token, [R,N,T]; 0 on padding."""
    return cosine(evidence.visual, evidence.question_embeds) * evidence.question_mask[:, None]


def min_max(scores: Tensor) -> Tensor:
    """Each row of [R,N] to (0, 1]."""
    low, high = scores.amin(dim=-1, keepdim=True), scores.amax(dim=-1, keepdim=True)
    return (scores - low + _FLAT) / (high - low + _FLAT)


def best_untaken(gains: Tensor, taken: Tensor) -> Tensor:
    """gains [R,N], taken bool [R,N] -> [R,1], the first best token of each row, which is then marked in ``taken``."""
    best = gains.masked_fill(taken, -torch.inf).argmax(dim=-1, keepdim=True)
    taken.scatter_(1, best, True)
    return best


def indices_of(taken: Tensor) -> Tensor:
    """taken bool [R,N] with K true in every row -> int64 [R,K], ascending."""
    return taken.nonzero()[:, 1].view(len(taken), -1)


def row_of(matrix: Tensor, index: Tensor) -> Tensor:
    """matrix [R,N,M], index [R,1] -> [R,M]."""
    return matrix.take_along_dim(index[..., None], dim=1)[:, 0]
