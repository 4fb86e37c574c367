"""Scorer, budgeted top-k, gather, projector: only kept tokens are projected.

The budget is a tensor, so that one graph serves every budget. With budget N every token is kept, in order, and the
result is exactly the unpruned model's.
"""

from __future__ import annotations

from torch import Tensor, nn

from grip_edge.calibration.scorer import GripScorer
from grip_edge.export.networks.ops import keep_best
from grip_edge.export.networks.projector import Projector


class Select(nn.Module):
    def __init__(self, scorer: GripScorer, projector: Projector) -> None:
        super().__init__()
        self.scorer = scorer
        self.projector = projector

    def forward(self, features: Tensor, question_embeds: Tensor, budget: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """features [1,N,Dv], question_embeds [1,T,D], budget int64 [1]

        -> kept_embeds [1,K,D], kept_indices int64 [1,K] ascending, scores [1,N].
        """
        scores = self.scorer(features, question_embeds, budget)
        kept_indices = keep_best(scores, budget)
        kept_embeds = self.projector(features.index_select(1, kept_indices[0]))
        return kept_embeds, kept_indices, scores
