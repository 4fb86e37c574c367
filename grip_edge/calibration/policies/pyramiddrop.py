"""PyramidDrop (2410.17247): after a quarter, a half and three quarters of the layers, the same share of tokens stays.

As in the authors' code (Cooperx521/PyramidDrop, ``modeling_llama_pdrop.py``): tokens are ranked by the attention of the
prompt's last token in the layer that comes next, mean over heads, and positions are made consecutive. Its defaults
(layers 8, 16, 24 of 32; shares 1/2, 1/4, 1/8) are the budget 1/8 here; another budget K of N changes the share that
stays at each of the three steps, to the cube root of K / N.
"""

from __future__ import annotations

from grip_edge.calibration.policies.in_decoder import InDecoderPolicy
from grip_edge.calibration.policies.pruned_decoder import Stage
from grip_edge.errors import UserError

_STEPS = 3


class PyramidDrop(InDecoderPolicy):
    name = "PyramidDrop"
    reindexed = True

    def stages(self, layers: int, visual_tokens: int, kept: int) -> tuple[Stage, ...]:
        if layers <= _STEPS:
            raise UserError(f"PyramidDrop drops tokens at {_STEPS} depths; this decoder has {layers} layers.")
        stages = []
        for step in range(1, _STEPS + 1):
            first_layer = layers * step // (_STEPS + 1)
            left = round(visual_tokens * (kept / visual_tokens) ** (step / _STEPS))
            stages.append(Stage(first_layer, ranked_by=first_layer, kept=left))
        return tuple(stages)
