"""From an RGB image to the vision tower's input, bit for bit what transformers' CLIP processor (Pillow path) makes.

Shortest edge resized with Pillow's filter, centre crop (black where the image is smaller), then
``(x / 255 - mean) / std`` in float32. There are only 256 values per channel, so the arithmetic is done once per value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grip_edge.errors import BundleError
from grip_edge.manifest import ImageSpec
from grip_edge.runtime.image import check_pixels

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
        """RGB image -> pixels [1,3,H,W]."""
        levels = np.asarray(self.crop(image))  # [H,W,3]
        planes = [self._value_of[channel][levels[:, :, channel]] for channel in range(3)]
        return np.stack(planes)[None]

    def crop(self, image: Image.Image, scale: int = 1) -> Image.Image:
        """What the model sees of the image, ``scale`` times as large in each direction."""
        resized_size = _shortest_edge_size(image.size, self.spec.resize_px * scale)
        check_pixels(*resized_size, f"The image, resized to {self.spec.resize_px * scale} px at its shortest edge,")
        resized = image.resize(resized_size, _FILTERS[self.spec.resample])
        side = self.spec.crop_px * scale
        left, top = (resized.width - side) // 2, (resized.height - side) // 2
        return resized.crop((left, top, left + side, top + side))


def _shortest_edge_size(size: tuple[int, int], shortest_px: int) -> tuple[int, int]:
    """(width, height) with the shorter one ``shortest_px`` and the ratio kept, rounded down as CLIP does."""
    width, height = size
    if width <= height:
        return shortest_px, int(shortest_px * height / width)
    return int(shortest_px * width / height), shortest_px
