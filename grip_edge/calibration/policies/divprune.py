"""DivPrune (2503.02175): the subset whose closest pair is as far apart as possible, greedily.

    D = 1 - cosine of the projected tokens
    first:  argmax_i min_{j != i} D_ij        the token whose nearest neighbour is farthest
    then:   argmax_i min_{s kept} D_is

As in the authors' code (vbdi/divprune, ``LLaVA/llava/model/llava_arch.py``, ``DivPrune``), which works on the
projector's output. Knows nothing of the question.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grip_edge.calibration.policies.greedy import FarthestFirst
from grip_edge.calibration.policies.interface import Evidence
from grip_edge.calibration.policies.set_policy import SetPolicy
from grip_edge.calibration.policies.similarity import cosine


class DivPrune(SetPolicy):
    name = "DivPrune"
    rule = FarthestFirst

    def measures(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Distance [R,N,N], and to the nearest neighbour [R,N]."""
        distance = 1 - cosine(evidence.visual, evidence.visual)
        itself = torch.eye(distance.shape[1], dtype=torch.bool, device=distance.device)
        return distance, distance.masked_fill(itself, torch.inf).amin(dim=-1)
