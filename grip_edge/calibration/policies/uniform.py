"""Uniform stride: the tokens nearest to K evenly spaced places in raster order."""

from __future__ import annotations

import torch
from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence, ScorePolicy


class UniformStride(ScorePolicy):
    name = "uniform stride"

    def scores(self, evidence: Evidence, kept: int) -> Tensor:
        rows, count = evidence.cls_attention.shape
        places = ((torch.arange(kept) + 0.5) * count / kept).long()
        return torch.zeros(count).index_fill(0, places, 1.0).expand(rows, -1)
