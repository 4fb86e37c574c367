"""FasterVLM (2412.01818): keep the patches that the tower's CLS token attends to, mean over heads.

As in the authors' code (Theia-4869/FasterVLM, ``llava/model/multimodal_encoder/clip_encoder.py``), the attention is
that of the layer whose output LLaVA reads: the second-last of CLIP.
"""

from __future__ import annotations

from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence, Policy


class ClsAttention(Policy):
    name = "CLS attention"

    def scores(self, evidence: Evidence, budget: Tensor) -> Tensor:
        return evidence.cls_attention
