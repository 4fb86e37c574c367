"""What every policy gets and gives: evidence in, indices of the kept tokens out.

Two kinds exist. A score policy rates each token by itself and keeps the K best (``ScorePolicy``); the others build
a set, where the worth of a token depends on those already taken, and implement ``select`` directly. Shapes: R
questions, N visual tokens, K kept, T question tokens, Dv and D the widths before and after the projector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from grip_edge.calibration.selection import keep_best


@dataclass(frozen=True)
class Evidence:
    """For R questions: ``features`` [R,N,Dv] of the tower, ``visual`` [R,N,D] the same tokens after the projector,
    ``cls_attention`` [R,N], ``question_embeds`` [R,T,D], ``question_mask`` bool [R,T] (False: padding), and ``grid``,
    the rows and columns of the N tokens in raster order.
    """

    features: Tensor
    visual: Tensor
    cls_attention: Tensor
    question_embeds: Tensor
    question_mask: Tensor
    grid: tuple[int, int]


class Policy(Protocol):
    """``name`` stands in reports."""

    name: str

    def select(self, evidence: Evidence, kept: int) -> Tensor:
        """Indices of the ``kept`` tokens (1..N), int64 [R,K], ascending; ties go to the lower index."""
        ...


class ScorePolicy(ABC):
    """A policy that rates tokens independently of each other."""

    name: str

    @abstractmethod
    def scores(self, evidence: Evidence, kept: int) -> Tensor:
        """[R,N], higher is kept, knowing that ``kept`` tokens will be."""

    def select(self, evidence: Evidence, kept: int) -> Tensor:
        return keep_best(self.scores(evidence, kept), kept)
