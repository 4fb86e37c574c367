"""FastV (2403.06764): behind layer 2, only the visual tokens that the prompt's last token attended to most in it.

As in the authors' code (pkunlp-icler/FastV, ``modeling_llama.py``, in place): attention of the layer before, mean over
heads, the last token's row alone (the paper speaks of the mean over all tokens; see its issues 14 and 48), positions
unchanged. That code drops anew for every new token, since it has no cache; here, as in its version with a cache, the
prompt decides for the whole answer.
"""

from __future__ import annotations

from grip_edge.calibration.policies.in_decoder import InDecoderPolicy
from grip_edge.calibration.policies.pruned_decoder import Stage
from grip_edge.errors import UserError


class FastV(InDecoderPolicy):
    name = "FastV"
    reindexed = False

    def __init__(self, after_layers: int = 2) -> None:
        self.after_layers = after_layers

    def stages(self, layers: int, visual_tokens: int, kept: int) -> tuple[Stage, ...]:
        if layers <= self.after_layers:
            raise UserError(f"FastV drops tokens behind layer {self.after_layers}; this decoder has {layers} layers.")
        return (Stage(first_layer=self.after_layers, ranked_by=self.after_layers - 1, kept=kept),)
