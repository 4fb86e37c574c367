"""VisionZip (2412.04467, section 3.2), its choice of tokens: dominant ones by CLS attention, contextual ones evenly.

    dominant:    ceil(5/6 K) tokens that CLS attends to most
    contextual:  the others, at a uniform stride over the rest in raster order

VisionZip then adds to each contextual token the mean of the tokens whose keys resemble it, and also passes CLS on.
Neither is done here, since a bundle keeps tokens unchanged and has no CLS: so this is the published choice without
the published merging, and below what the whole method may reach. The stride alone places the contextual tokens;
keys are needed only to merge.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grip_edge.calibration.policies.interface import Evidence
from grip_edge.calibration.policies.similarity import indices_of
from grip_edge.calibration.selection import keep_best


class VisionZip:
    name = "VisionZip, no merging"

    def select(self, evidence: Evidence, kept: int) -> Tensor:
        attention = evidence.cls_attention
        dominant = -(-5 * kept // 6)
        taken = torch.zeros(attention.shape, dtype=torch.bool)
        taken.scatter_(1, keep_best(attention, dominant), True)
        if kept > dominant:
            rest = indices_of(~taken)
            stride = rest.shape[1] // (kept - dominant)
            taken.scatter_(1, rest[:, ::stride][:, : kept - dominant], True)
        return indices_of(taken)
