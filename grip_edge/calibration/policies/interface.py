"""What every policy gets and gives: evidence in, one score per visual token out; the K best scored are kept.

A policy that rates each token by itself scores it as it is. One that builds a set, where the worth of a token depends
on those already taken, scores each token by when it was taken (``greedy``). So every policy, like every trained
scorer, is the same function of the same inputs, with the budget as one of them, and can be exported as such.

Shapes: R questions, N visual tokens, K kept, T question tokens, Dv and D the widths before and after the projector.
Not here: which policy reads what (``grip_edge.policy_catalog``); policies inside the decoder (``in_decoder``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from grip_edge.calibration.selection import keep_best

# Entries of a matrix of all pairs of tokens, over all questions that are scored at once: 32 MB in fp32.
_PAIRS_AT_ONCE = 2**23


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

    def blocks(self, rows: int) -> Iterator[Evidence]:
        """The same evidence, ``rows`` questions at a time."""
        for start in range(0, len(self.features), rows):
            part = slice(start, start + rows)
            yield Evidence(
                features=self.features[part],
                visual=self.visual[part],
                cls_attention=self.cls_attention[part],
                question_embeds=self.question_embeds[part],
                question_mask=self.question_mask[part],
                grid=self.grid,
            )


class Policy(ABC):
    """``name`` stands in reports."""

    name: str

    @abstractmethod
    def scores(self, evidence: Evidence, budget: Tensor) -> Tensor:
        """[R,N], higher is kept, knowing that ``budget`` (int64 [1], 1..N) tokens will be."""

    def select(self, evidence: Evidence, kept: int) -> Tensor:
        """Indices of the ``kept`` tokens (1..N), int64 [R,K], ascending; ties to the lower index, NaN last."""
        budget = torch.tensor([kept], device=evidence.features.device)
        rows = max(1, _PAIRS_AT_ONCE // evidence.features.shape[1] ** 2)
        return torch.cat([keep_best(self.scores(block, budget), kept) for block in evidence.blocks(rows)])
