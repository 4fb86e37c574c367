"""A trained scorer (GRIP's, or TPRL's) as a policy."""

from __future__ import annotations

import torch
from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence, Policy
from grip_edge.calibration.scorer_interface import Scorer


class Grip(Policy):
    def __init__(self, scorer: Scorer, name: str = "GRIP") -> None:
        self.name = name
        self.scorer = scorer

    @torch.no_grad()
    def scores(self, evidence: Evidence, budget: Tensor) -> Tensor:
        scores: Tensor = self.scorer(
            evidence.features.float(), evidence.question_embeds.float(), budget, evidence.question_mask
        )
        return scores
