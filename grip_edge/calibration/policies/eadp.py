"""EADP (2607.02484): question tokens that point somewhere vote; kept tokens cover what they voted for.

    s_t = minus cosine of the projected tokens with question token t;  s_0 = the same with the question's mean embedding
    H_t = entropy over the image of softmax(s_t / 0.01);  only the share of question tokens with the lowest H votes
    w   = 0.5 s_0 + 0.5 sum_t softmax(-H / 0.01)_t s_t,  min-max, 3x3 Gaussian on the grid (sigma 1, reflected), ^ power
    keep greedily the set of largest  sum_j w_j max_{u kept} (1 + cosine_uj) / 2      (facility location)

As in the authors' code for models without CLIP's text tower (SJTU-DeepVisionLab/EADP, ``Qwen_vl/model/pruner.py``),
which reads the question in the language model's embedding space, negation included (``negated=False`` turns it off).
The share is the paper's 0.5 (that code: 0.2), the power the code's 1. Not here: quotas per crop.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from grip_edge.calibration.policies.greedy import WidestCover
from grip_edge.calibration.policies.interface import Evidence
from grip_edge.calibration.policies.set_policy import SetPolicy
from grip_edge.calibration.policies.similarity import cosine, min_max, places, question_cosine

_TEMPERATURE = 0.01
_GLOBAL_SHARE = 0.5
_SIGMA = 1.0


class Eadp(SetPolicy):
    rule = WidestCover

    def __init__(self, token_share: float = 0.5, power: float = 1.0, negated: bool = True) -> None:
        self.name = "EADP" if negated else "EADP, plain relevance"
        self.token_share = token_share
        self.power = power
        self.sign = -1.0 if negated else 1.0

    def measures(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Weights [R,N] and similarity [R,N,N]."""
        return self.weights(evidence), (1 + cosine(evidence.visual, evidence.visual)) / 2

    def weights(self, evidence: Evidence) -> Tensor:
        """What each token is worth covering, [R,N]."""
        mask = evidence.question_mask[..., None]
        mean = (evidence.question_embeds * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)
        whole = self.sign * cosine(evidence.visual, mean)[..., 0]
        per_token = self.sign * question_cosine(evidence)
        votes = token_votes(per_token, evidence.question_mask, self.token_share)
        mixed = _GLOBAL_SHARE * whole + (1 - _GLOBAL_SHARE) * (per_token @ votes[..., None])[..., 0]
        weights: Tensor = smoothed(min_max(mixed), evidence.grid) ** self.power
        return weights


def token_votes(per_token: Tensor, mask: Tensor, share: float) -> Tensor:
    """per_token [R,N,T], mask bool [R,T] -> [R,T], summing to 1 over the most concentrated question tokens."""
    chances = (per_token / _TEMPERATURE).softmax(dim=1)
    entropy = torch.special.entr(chances).sum(dim=1).masked_fill(~mask, torch.inf)
    voters = (mask.sum(dim=-1, keepdim=True) * share).long().clamp(min=1)
    votes: Tensor = (-entropy / _TEMPERATURE).masked_fill(places(-entropy) >= voters, -torch.inf).softmax(dim=-1)
    return votes


def smoothed(weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """3x3 Gaussian over the grid, reflected at the border; [R,N] -> [R,N]."""
    steps = torch.arange(-1, 2, dtype=weights.dtype, device=weights.device)
    line = torch.exp(-steps.square() / (2 * _SIGMA**2))
    window = torch.outer(line, line) / line.sum().square()
    image = F.pad(weights.unflatten(-1, grid)[:, None], (1, 1, 1, 1), mode="reflect")
    return F.conv2d(image, window[None, None]).flatten(1)
