"""FasterVLM (2412.01818): keep the patches that the tower's CLS token attends to, mean over heads."""

from __future__ import annotations

from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence, ScorePolicy


class ClsAttention(ScorePolicy):
    name = "CLS attention"

    def scores(self, evidence: Evidence, kept: int) -> Tensor:
        return evidence.cls_attention
