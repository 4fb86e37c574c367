"""DivPrune (2503.02175, sections 3.2 and 3.3): the subset whose closest pair is as far apart as possible, greedily.

    D = 1 - cosine of the projected tokens
    first:  argmax_i min_{j != i} D_ij        the token whose nearest neighbour is farthest
    then:   argmax_i min_{s kept} D_is

Knows nothing of the question.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence
from grip_edge.calibration.policies.similarity import best_untaken, cosine, indices_of, row_of


class DivPrune:
    name = "DivPrune"

    def select(self, evidence: Evidence, kept: int) -> Tensor:
        distance = 1 - cosine(evidence.visual, evidence.visual)
        taken = torch.zeros(distance.shape[:2], dtype=torch.bool)
        to_others = distance.diagonal_scatter(torch.full(taken.shape, torch.inf).to(distance), dim1=1, dim2=2)
        to_kept = row_of(distance, best_untaken(to_others.amin(dim=-1), taken))
        for _ in range(kept - 1):
            to_kept = torch.minimum(to_kept, row_of(distance, best_untaken(to_kept, taken)))
        return indices_of(taken)
