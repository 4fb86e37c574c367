"""The image as the model gets it, and which visual token lies where in it.

One view for models that see the whole image once (shortest edge resized, centre crop); two for models that cut images
into tiles: the whole image with the patches of the small view, and again with those of the detail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grip_edge.manifest import Manifest
from grip_edge.runtime.preprocess import Preprocessor
from grip_edge.tiles import TilingSpec, plan_tiles

GAP_PX = 12
PAPER = (20, 20, 24)


@dataclass(frozen=True)
class View:
    """``tokens`` int [rows, columns]: the visual token of each patch of ``picture``, -1 where there is none."""

    picture: Image.Image
    tokens: NDArray[np.int64]

    def chosen(self, kept_indices: Sequence[int]) -> NDArray[np.bool_]:
        """[rows, columns]: which patches are among the kept tokens."""
        return np.isin(self.tokens, np.asarray(kept_indices, np.int64))


def image_views(image: Image.Image, manifest: Manifest, side_px: int) -> list[View]:
    """Enlarged, or made smaller, to about ``side_px`` at the longer edge."""
    if manifest.image.tiling is not None:
        return _tiled_views(image, manifest.image.tiling, side_px)
    rows, columns = manifest.model.vision.grid
    scale = max(1, round(side_px / manifest.image.crop_px))
    patch_px = scale * manifest.model.vision.patch_px
    seen = Preprocessor(manifest.image).crop(image, scale).crop((0, 0, columns * patch_px, rows * patch_px))
    return [View(seen, np.arange(rows * columns, dtype=np.int64).reshape(rows, columns))]


def on_one_page(pictures: Sequence[Image.Image]) -> Image.Image:
    """Equally large ones, side by side along their shorter edge."""
    first = pictures[0]
    step = (0, first.height + GAP_PX) if first.width > first.height else (first.width + GAP_PX, 0)
    last = len(pictures) - 1
    page = Image.new("RGB", (first.width + last * step[0], first.height + last * step[1]), PAPER)
    for number, picture in enumerate(pictures):
        page.paste(picture, (number * step[0], number * step[1]))
    return page


def _tiled_views(image: Image.Image, tiling: TilingSpec, side_px: int) -> list[View]:
    plan = plan_tiles((image.height, image.width), tiling)
    token_of = np.full(len(plan.sources) + 1, -1, np.int64)
    token_of[plan.order] = np.arange(plan.visual_tokens)
    small = token_of[: tiling.patches].reshape(tiling.grid, tiling.grid)
    detail = token_of[tiling.patches : -1].reshape(plan.detail)  # the last one is the newline, which has no place
    scale = side_px / max(image.size)
    seen = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    return [View(seen, tokens) for tokens in (small, detail) if tokens.size]
