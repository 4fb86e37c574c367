"""What every policy gets and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from grip_edge.calibration.selection import keep_best


@dataclass(frozen=True)
class Evidence:
    """For R questions: ``features`` [R,N,Dv], ``cls_attention`` [R,N], ``question_embeds`` [R,T,D] and
    ``question_mask`` [R,T] (False: padding).
    """

    features: Tensor
    cls_attention: Tensor
    question_embeds: Tensor
    question_mask: Tensor


class Policy(Protocol):
    """``name`` stands in reports."""

    name: str

    def scores(self, evidence: Evidence, kept: int) -> Tensor:
        """[R,N], higher is kept, knowing that ``kept`` tokens will be."""
        ...


def select(policy: Policy, evidence: Evidence, kept: int) -> Tensor:
    """Indices of the kept tokens, int64 [R,K], ascending."""
    return keep_best(policy.scores(evidence, kept), kept)
