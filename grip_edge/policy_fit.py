"""Which selectors fit which models, from what both need and have. Needs neither torch nor a checkpoint.

Not here: what a model is (``catalog``, ``export.architecture``), what a selector does (``policy_catalog``).
"""

from __future__ import annotations

from dataclasses import dataclass

from grip_edge.policy_catalog import CHANCE, CLS_ATTENTION, DECODER_ATTENTION, TRAINING, PolicySpec


@dataclass(frozen=True)
class ModelTraits:
    """``has_cls``: the vision tower has a token whose attention can rank patches. ``tiled``: an image is several
    views, and the number of its visual tokens its own. ``scorer``: the method of the scorer that comes with the model.
    """

    has_cls: bool
    tiled: bool
    decoder_layers: int | None = None
    scorer: str | None = None


def obstacle(spec: PolicySpec, traits: ModelTraits) -> str | None:
    """Why the selector cannot choose tokens of this model; None if it can (once trained, if it needs that)."""
    if CLS_ATTENTION in spec.reads and not traits.has_cls:
        return "its vision tower has no CLS attention"
    if traits.tiled and TRAINING in spec.reads:
        return "scorers are made for one view, it cuts images into tiles"
    if traits.tiled and spec.reads & {DECODER_ATTENTION, CHANCE}:
        return "evaluated on one view only, it cuts images into tiles"
    if traits.tiled and spec.one_view:
        return "chooses within one view, it cuts images into tiles"
    if traits.decoder_layers is not None and traits.decoder_layers < spec.least_decoder_layers:
        return f"{traits.decoder_layers} decoder layers, needs {spec.least_decoder_layers}"
    return None
