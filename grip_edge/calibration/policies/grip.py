"""The trained GRIP scorer as a policy."""

from __future__ import annotations

import torch
from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence, ScorePolicy
from grip_edge.calibration.scorer import GripScorer


class Grip(ScorePolicy):
    def __init__(self, scorer: GripScorer, name: str = "GRIP") -> None:
        self.name = name
        self.scorer = scorer

    @torch.no_grad()
    def scores(self, evidence: Evidence, kept: int) -> Tensor:
        scores: Tensor = self.scorer(
            evidence.features.float(),
            evidence.question_embeds.float(),
            torch.tensor([kept]),
            evidence.question_mask,
        )
        return scores
