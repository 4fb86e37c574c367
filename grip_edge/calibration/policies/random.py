"""Uniformly random tokens: the floor that published methods do not always reach (UniPruneBench, 2511.02650)."""

from __future__ import annotations

import torch
from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence, ScorePolicy


class Random(ScorePolicy):
    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def scores(self, evidence: Evidence, kept: int) -> Tensor:
        return torch.rand(evidence.cls_attention.shape, generator=self.generator)
