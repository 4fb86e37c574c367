"""What each vision patch of a scene shows: the supervision of the embedded model's vision tower.

All labels are integers per patch, 0 = nothing, i+1 = the i-th word of the vocabulary in ``scene``. The masks come
from the function that paints the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from grip_edge.calibration.scenes.render import draw_shape, glyph_box
from grip_edge.calibration.scenes.scene import COLOURS, GLYPHS, SHAPES, SIZES, Scene

LABEL_CLASSES = {
    "colour": len(COLOURS) + 1,
    "shape": len(SHAPES) + 1,
    "size": len(SIZES) + 1,
    "glyph": len(GLYPHS) + 2,
    "centre": 2,
}
"""Classes per label kind. ``glyph`` has one class more: "this object carries none"."""

_MIN_COVER = 0.12
_COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class PatchLabels:
    """One uint8 array [grid, grid] per key of ``LABEL_CLASSES``."""

    colour: NDArray[np.uint8]
    shape: NDArray[np.uint8]
    size: NDArray[np.uint8]
    glyph: NDArray[np.uint8]
    centre: NDArray[np.uint8]

    def stacked(self) -> NDArray[np.uint8]:
        """[5, grid, grid], in the order of ``LABEL_CLASSES``."""
        return np.stack([getattr(self, kind) for kind in LABEL_CLASSES])


def patch_owner(scene: Scene, grid: int, patch_px: int = 14) -> NDArray[np.uint8]:
    """[grid, grid]: 0 where the background rules, else 1 + the index of the object that covers the patch."""
    side_px = grid * patch_px
    mask = Image.new("L", (side_px, side_px), 0)
    draw = ImageDraw.Draw(mask)
    for index, thing in enumerate(scene.objects):
        draw_shape(draw, thing, side_px, fill=index + 1)
    patches = np.asarray(mask).reshape(grid, patch_px, grid, patch_px).transpose(0, 2, 1, 3).reshape(grid, grid, -1)
    cover = np.stack([(patches == i).mean(axis=-1) for i in range(1, len(scene.objects) + 1)], axis=-1)
    return np.where(cover.max(axis=-1) >= _MIN_COVER, cover.argmax(axis=-1) + 1, 0).astype(np.uint8)


def patch_labels(scene: Scene, grid: int = 12, patch_px: int = 14) -> PatchLabels:
    owner = patch_owner(scene, grid, patch_px)
    labels = {kind: np.zeros((grid, grid), dtype=np.uint8) for kind in LABEL_CLASSES}
    for index, thing in enumerate(scene.objects):
        here = owner == index + 1
        labels["colour"][here] = _COLOUR_NAMES.index(thing.colour) + 1
        labels["shape"][here] = SHAPES.index(thing.shape) + 1
        labels["size"][here] = SIZES.index(thing.size) + 1
        labels["glyph"][here] = len(GLYPHS) + 1 if thing.glyph is None else 0
        labels["centre"][int(thing.y * grid), int(thing.x * grid)] = 1
        if thing.glyph is not None:
            labels["glyph"][here & _covers(glyph_box(thing), grid)] = GLYPHS.index(thing.glyph) + 1
    return PatchLabels(**labels)


def _covers(box: tuple[float, float, float, float], grid: int) -> NDArray[np.bool_]:
    """Patches that the box covers by at least a quarter of itself or of the patch."""
    left, top, right, bottom = (v * grid for v in box)
    edges = np.arange(grid)
    wide = np.clip(np.minimum(edges + 1, right) - np.maximum(edges, left), 0, None)
    high = np.clip(np.minimum(edges + 1, bottom) - np.maximum(edges, top), 0, None)
    covered: NDArray[np.bool_] = np.outer(high, wide) >= 0.25 * min(1.0, (right - left) * (bottom - top))
    return covered
