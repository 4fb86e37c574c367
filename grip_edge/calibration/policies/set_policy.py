"""A policy that builds a set greedily from measures of all pairs of tokens.

A token that holds NaN or infinity counts as zero in every measure and is kept last, so that one broken patch does not
spoil the choice among the others.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from grip_edge.calibration.policies.greedy import OPERATORS, FarthestFirst, MostDiverse, WidestCover, shortfall
from grip_edge.calibration.policies.interface import Evidence, Policy


class SetPolicy(Policy):
    """``rule`` is the kind of greedy choice."""

    rule: ClassVar[type[FarthestFirst] | type[MostDiverse] | type[WidestCover]]

    @abstractmethod
    def measures(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """The two tensors that ``rule`` starts from, of evidence without NaN."""

    def scores(self, evidence: Evidence, budget: Tensor) -> Tensor:
        """Rank-derived: 1 for the token taken first, 1/N less for each later one, 0 for those not taken."""
        clean, usable = _clean(evidence)
        return OPERATORS[self.rule](*self.measures(clean), usable, budget)

    def shortfall(self, evidence: Evidence, kept: int, scores: Tensor) -> float:
        """For one question: how far the order that ``scores`` [1,N] tell is from greedy; 0 if it is greedy."""
        clean, usable = _clean(evidence)
        if int((scores > 0).sum()) != min(kept, int(usable.sum())):
            return math.inf
        return shortfall(self.rule(*self.measures(clean)), usable, scores)


def _clean(evidence: Evidence) -> tuple[Evidence, Tensor]:
    """Evidence with zeros for broken vectors, and which tokens are whole, bool [R,N]."""
    usable = evidence.visual.isfinite().all(dim=-1)
    readable = evidence.question_embeds.isfinite().all(dim=-1, keepdim=True)
    visual = evidence.visual.where(usable[..., None], 0.0)
    return replace(evidence, visual=visual, question_embeds=evidence.question_embeds.where(readable, 0.0)), usable
