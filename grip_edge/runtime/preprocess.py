"""From an RGB image to the vision tower's input, bit for bit what transformers' processors (Pillow path) make.

    one view    shortest edge resized with Pillow's filter, centre crop (black where the image is smaller): CLIP
    stretched   the whole image resized to a square: SigLIP
    tiles       a stretched view, then the image fitted into its best resolution on black and cut into squares:
                LLaVA-NeXT and LLaVA-OneVision (``grip_edge.tiles``)

Then ``(x / 255 - mean) / std`` in float32. There are only 256 values per channel, so the arithmetic is done once per
value.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grip_edge.errors import BundleError
from grip_edge.manifest import ImageSpec
from grip_edge.runtime.image import check_pixels
from grip_edge.tiles import TilePlan, TilingSpec, best_resolution, fitted_size, plan_tiles

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


class Preprocessor:
    """Stateless after construction; safe to share between threads."""

    def __init__(self, spec: ImageSpec) -> None:
        if spec.resample not in _FILTERS:
            known = ", ".join(_FILTERS)
            raise BundleError(f"grip.json: image.resample is '{spec.resample}', expected one of {known}.")
        self.spec = spec
        scaled = (np.arange(256).astype(np.float64) * (1 / 255)).astype(np.float32)
        mean, std = (np.array(values, np.float32)[:, None] for values in (spec.mean, spec.std))
        self._value_of = (scaled[None] - mean) / std  # [3, 256]

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """RGB image -> pixels [A,3,H,W] of A tiles, or [1,3,H,W]."""
        tiling = self.spec.tiling
        views = [self.crop(image)] if tiling is None else [self.crop(image), *self._tiles(image, tiling)]
        pixels = np.empty((len(views), 3, views[0].height, views[0].width), np.float32)
        for place, view in zip(pixels, views, strict=True):
            for plane, band, value_of in zip(place, view.split(), self._value_of, strict=True):
                np.take(
                    value_of, np.asarray(band), out=plane, mode="clip"
                )  # no level is beyond the 256: none is checked
        return pixels

    def plan(self, image: Image.Image) -> TilePlan | None:
        """What the image's visual tokens are made of, where that depends on the image."""
        return None if self.spec.tiling is None else plan_tiles((image.height, image.width), self.spec.tiling)

    def crop(self, image: Image.Image, scale: int = 1) -> Image.Image:
        """What the model sees of the image in its one (or first) view, ``scale`` times as large in each direction."""
        side = self.spec.crop_px * scale
        if self.spec.stretch:
            return image.resize((side, side), _FILTERS[self.spec.resample])
        resized_size = _shortest_edge_size(image.size, self.spec.resize_px * scale)
        check_pixels(*resized_size, f"The image, resized to {self.spec.resize_px * scale} px at its shortest edge,")
        resized = image.resize(resized_size, _FILTERS[self.spec.resample])
        left, top = (resized.width - side) // 2, (resized.height - side) // 2
        return resized.crop((left, top, left + side, top + side))

    def _tiles(self, image: Image.Image, tiling: TilingSpec) -> Iterator[Image.Image]:
        """In raster order."""
        size = (image.height, image.width)
        frame_height, frame_width = frame = best_resolution(size, tiling.resolutions)
        height, width = fitted_size(size, frame)
        framed = Image.new("RGB", (frame_width, frame_height))
        fitted = image.resize((width, height), _FILTERS[self.spec.resample])
        framed.paste(fitted, ((frame_width - width) // 2, (frame_height - height) // 2))
        side = tiling.tile_px
        for top in range(0, frame_height, side):
            for left in range(0, frame_width, side):
                yield framed.crop((left, top, left + side, top + side))


def _shortest_edge_size(size: tuple[int, int], shortest_px: int) -> tuple[int, int]:
    """(width, height) with the shorter one ``shortest_px`` and the ratio kept, rounded down as CLIP does."""
    width, height = size
    if width <= height:
        return shortest_px, int(shortest_px * height / width)
    return int(shortest_px * width / height), shortest_px
