"""Uniform stride: the tokens in the middles of K equal stretches of the raster order."""

from __future__ import annotations

import torch
from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence, Policy


class UniformStride(Policy):
    name = "uniform stride"

    def scores(self, evidence: Evidence, budget: Tensor) -> Tensor:
        """1 for the tokens floor((k + 1/2) N / K), k = 0 .. K-1: differences of how many such lie before each token."""
        rows, count = evidence.features.shape[:2]
        places = (2 * budget * torch.arange(count + 1, device=budget.device) + count - 1) // (2 * count)
        return places.diff().float().expand(rows, -1)
