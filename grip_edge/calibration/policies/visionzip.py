"""VisionZip (2412.04467), its choice of tokens: dominant ones by CLS attention, contextual ones evenly.

    dominant:    ceil(27/32 K) tokens that CLS attends to most
    contextual:  the others, at a uniform stride over the rest in raster order

As in the authors' code (dvlab-research/VisionZip, ``visionzip/clip_encoder.py``; the share is the 54 + 10 of 64 tokens
of its README), which takes the attention of the layer whose output LLaVA reads, the second-last of CLIP.

VisionZip then adds to each contextual token the mean of the tokens whose keys resemble it, and passes CLS on as one of
the dominant. Neither is done here: CLS is none of the N tokens, a merged token is no longer the one its index names,
and both are in a bundle's contract. So this is the published choice without the published merging, and below what
the whole method may reach.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence, Policy
from grip_edge.calibration.policies.similarity import places


class VisionZip(Policy):
    name = "VisionZip, no merging"

    def scores(self, evidence: Evidence, budget: Tensor) -> Tensor:
        """2 for dominant tokens, 1 for contextual ones, 0 for the others."""
        attention = evidence.cls_attention.masked_fill(evidence.cls_attention.isnan(), -torch.inf)
        count = attention.shape[1]
        dominant = (27 * budget + 31) // 32
        contextual = budget - dominant
        rest = places(attention) >= dominant
        stride = (count - dominant) // contextual.clamp(min=1)
        place = rest.long().cumsum(dim=-1) - 1
        chosen = rest & (place % stride.clamp(min=1) == 0) & (place // stride.clamp(min=1) < contextual)
        return 2.0 * ~rest + 1.0 * chosen
