"""Which checkpoints training understands: LLaVA with a CLIP tower, features of one layer, without CLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grip_edge.errors import UserError


def check_supported(config: Any, origin: Path | str) -> None:
    """``config`` is transformers' own; UserError names the first field that does not fit."""
    _expect(origin, "model_type", config.model_type, "llava")
    _expect(origin, "vision_config.model_type", config.vision_config.model_type, "clip_vision_model")
    _expect(origin, "vision_feature_select_strategy", config.vision_feature_select_strategy, "default")
    if not isinstance(config.vision_feature_layer, int):
        raise UserError(f"'{origin}': vision_feature_layer is {config.vision_feature_layer!r}; expected one layer.")


def _expect(origin: Path | str, field: str, found: object, expected: str) -> None:
    if found != expected:
        raise UserError(
            f"'{origin}': {field} is {found!r}; a scorer can be trained where it is {expected!r} (LLaVA-1.5)."
        )
