"""Named difficulties of rendered scenes, from the standard benchmark to scenes that need more pixels.

``default`` is what the embedded model is trained on; the others are harder for any model, and farther from its
training. Sizes are fractions of the image side, so what a preset asks of a model depends on how many patches the
model cuts an image into: ``high-resolution`` is ``default`` for a model that sees twice as many pixels per side.
"""

from __future__ import annotations

from dataclasses import dataclass

from grip_edge.calibration.scenes.scene import SceneSettings
from grip_edge.errors import UserError


@dataclass(frozen=True)
class Preset:
    """``min_side_px`` is the smallest image on which the scene's objects can be told apart."""

    description: str
    settings: SceneSettings
    min_side_px: int = 112


PRESETS: dict[str, Preset] = {
    "default": Preset("3 to 6 objects", SceneSettings()),
    "crowded": Preset(
        "7 to 10 objects, a little smaller",
        SceneSettings(
            min_objects=7,
            max_objects=10,
            small_radius=(0.050, 0.062),
            large_radius=(0.085, 0.105),
            clutter_items=(4, 12),
        ),
    ),
    "small": Preset(
        "3 to 6 objects of half the size, much background",
        SceneSettings(small_radius=(0.031, 0.039), large_radius=(0.053, 0.065), clutter_items=(16, 32)),
    ),
    "dense-text": Preset(
        "6 to 9 objects, nearly all of them large enough for a letter or a digit, and carrying one",
        SceneSettings(
            min_objects=6,
            max_objects=9,
            small_radius=(0.055, 0.065),
            large_radius=(0.090, 0.110),
            large_probability=0.9,
            glyph_probability=0.95,
        ),
    ),
    "high-resolution": Preset(
        "5 to 9 objects of half the size, for models with at least 20 patches per side",
        SceneSettings(min_objects=5, max_objects=9, small_radius=(0.031, 0.039), large_radius=(0.053, 0.065)),
        min_side_px=280,
    ),
}


def scene_settings(name: str, side_px: int) -> SceneSettings:
    """The settings of a preset, for images of ``side_px``; UserError where the name or the size does not fit."""
    preset = PRESETS.get(name)
    if preset is None:
        raise UserError(f"There are no scenes '{name}'; expected one of {', '.join(PRESETS)}.")
    if side_px < preset.min_side_px:
        raise UserError(
            f"Scenes '{name}' need a model that sees at least {preset.min_side_px} px per side; this one sees "
            f"{side_px} px. Choose another preset."
        )
    return preset.settings
