"""CDPruner (2506.10967, section 3): a determinantal point process conditioned on the question; and its centred form.

    r = min-max over the image of the mean cosine with the question's tokens
    S = cosine of the projected tokens
    L = diag(r) S diag(r);  keep the set of largest det(L_kept), greedily

Cen-CDPruner (Cen-Prune, 2608.30263) measures S after subtracting the image's mean token, and replaces r by r * g,
where g = min-max of minus the mean uncentred cosine to all tokens: distinctiveness, which centring would lose.

The paper takes r from CLIP's text tower, which a LLaVA checkpoint does not have; here it is taken in the language
model's embedding space, as OpenVINO GenAI does. The paper also negates r, since CLIP's patches are anti-correlated with
the text that they show; ``negated`` does so. Not here: OpenVINO's blend with S alone and its split into halves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence
from grip_edge.calibration.policies.similarity import (
    best_untaken,
    cosine,
    indices_of,
    min_max,
    question_cosine,
    row_of,
)


class CdPruner:
    def __init__(self, centred: bool = False, negated: bool = False) -> None:
        self.name = ("Cen-" if centred else "") + "CDPruner" + (", negated relevance" if negated else "")
        self.centred = centred
        self.negated = negated

    def select(self, evidence: Evidence, kept: int) -> Tensor:
        return most_diverse(self.kernel(evidence), kept)

    def kernel(self, evidence: Evidence) -> Tensor:
        """L, [R,N,N]."""
        tokens = evidence.visual
        relevance = question_cosine(evidence).sum(dim=-1) / evidence.question_mask.sum(dim=-1, keepdim=True)
        weight = min_max(-relevance if self.negated else relevance)
        if self.centred:
            weight = weight * min_max(-cosine(tokens, tokens).mean(dim=-1))
            tokens = tokens - tokens.mean(dim=1, keepdim=True)
        return weight[:, :, None] * cosine(tokens, tokens) * weight[:, None]


def most_diverse(kernel: Tensor, kept: int) -> Tensor:
    """Greedy MAP of a determinantal point process (Chen et al., 1709.05135, algorithm 1): kernel [R,N,N] -> [R,K].

    ``factor`` holds the Cholesky rows of the kept tokens, ``residual`` det(L_kept+i) / det(L_kept) of each token i.
    Once the kernel's rank is used up, every residual is 0 and the lowest indices follow.
    """
    rows, count, _ = kernel.shape
    diagonal = kernel.diagonal(dim1=1, dim2=2)
    rounding = diagonal * count * torch.finfo(kernel.dtype).eps
    residual = diagonal.clone()
    factor = kernel.new_zeros(rows, kept, count)
    taken = torch.zeros(rows, count, dtype=torch.bool)
    for step in range(kept):
        best = best_untaken(residual, taken)
        pivot = residual.gather(1, best)
        done = factor[:, :step]
        known = (done.take_along_dim(best[:, None], dim=2) * done).sum(dim=1)
        row = torch.where(pivot > 0, (row_of(kernel, best) - known) * pivot.rsqrt(), 0.0)
        factor[:, step] = row
        residual = residual - row.square()
        residual = torch.where(residual > rounding, residual, 0.0)
    return indices_of(taken)
