"""Scores, budgeted top-k, gather, projector: from all N visual tokens to the K that the language model gets.

The budget is a tensor, so that one graph serves every budget. With budget N every token is kept, in order, and the
result is exactly the unpruned model's. ``Select`` holds a trained scorer and projects only the kept tokens;
``SelectByPolicy`` holds a policy that needs no training, and if that compares projected tokens, it projects all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grip_edge.calibration.policies.interface import Evidence, Policy
from grip_edge.export.networks.ops import keep_best
from grip_edge.policy_catalog import PROJECTED, PolicySpec


class Select(nn.Module):
    """``scorer`` is called as ``calibration.scorer_interface.Scorer``."""

    def __init__(self, scorer: nn.Module, projector: nn.Module) -> None:
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


class SelectByPolicy(nn.Module):
    def __init__(self, policy: Policy, spec: PolicySpec, grid: tuple[int, int], projector: nn.Module) -> None:
        super().__init__()
        self.policy, self.grid = policy, grid
        self.projects_all = PROJECTED in spec.reads
        self.projector = projector

    def forward(
        self, features: Tensor, question_embeds: Tensor, budget: Tensor, cls_attention: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As ``Select``; cls_attention [1,N] for policies that read it."""
        visual = self.projector(features) if self.projects_all else features
        evidence = Evidence(
            features=features,
            visual=visual,
            cls_attention=features[..., 0] if cls_attention is None else cls_attention,  # not read if None
            question_embeds=question_embeds,
            question_mask=torch.ones(question_embeds.shape[:2], dtype=torch.bool),
            grid=self.grid,
        )
        scores = self.policy.scores(evidence, budget)
        kept_indices = keep_best(scores, budget)
        kept = visual.index_select(1, kept_indices[0])
        # An output that is an input needs a node of its own.
        return kept if self.projects_all else self.projector(kept), kept_indices, scores.clone()
