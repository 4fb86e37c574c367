"""Measures that several policies share: cosine, min-max and place in an order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence

# Added above and below, as in EADP's code (CDPruner's adds it above only): a constant row becomes all ones.
_FLAT = 1e-6


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """left [R,N,D], right [R,M,D] -> [R,N,M]; 0 where a vector is 0."""
    return F.normalize(left, dim=-1) @ F.normalize(right, dim=-1).transpose(1, 2)


def mean_cosine(tokens: Tensor) -> Tensor:
    """Of each token with all of its image, itself included: [R,N,D] -> [R,N], without the [N,N] matrix."""
    unit = F.normalize(tokens, dim=-1)
    return (unit @ unit.mean(dim=1)[..., None])[..., 0]


def question_cosine(evidence: Evidence) -> Tensor:
    """Cosine of each projected token with each embedded question token, [R,N,T]; 0 on padding."""
    return cosine(evidence.visual, evidence.question_embeds) * evidence.question_mask[:, None]


def min_max(scores: Tensor) -> Tensor:
    """Each row of [R,N] to (0, 1]."""
    low, high = scores.amin(dim=-1, keepdim=True), scores.amax(dim=-1, keepdim=True)
    return (scores - low + _FLAT) / (high - low + _FLAT)


def places(scores: Tensor) -> Tensor:
    """scores [R,M] -> int64 [R,M]: how many are better, counting equal ones of lower index (no sort, for ONNX)."""
    index = torch.arange(scores.shape[1], device=scores.device)
    mine, others = scores[:, :, None], scores[:, None]
    return ((others > mine) | ((others == mine) & (index < index[:, None]))).sum(dim=-1)
