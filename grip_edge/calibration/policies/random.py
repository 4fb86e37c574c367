"""Uniformly random tokens: the floor that published methods do not always reach (UniPruneBench, 2511.02650).

Draws anew for every question. It is not exported: a seeded constant in the graph would keep the same places of every
image, which is another policy, and ``uniform`` is the better one of that kind.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence, Policy


class Random(Policy):
    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def scores(self, evidence: Evidence, budget: Tensor) -> Tensor:
        return torch.rand(evidence.features.shape[:2], generator=self.generator).to(evidence.features.device)
