"""An image file as 8-bit RGB, by the rules of the runtime's reader, so that training sees what the device will see.

EXIF rotation applied, transparency on white, 16-bit grey scaled to 8 bits, the first frame of an animation.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from grip_edge.errors import ImageError


def read_image(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities; what matters is an error below
            with Image.open(path) as image:
                image.load()
                return _to_rgb(_upright(image))
    except MemoryError:
        raise ImageError(f"'{path}' does not fit into memory; make it smaller first.") from None
    except Exception as error:  # Pillow's decoders raise whatever their format's parser hits in a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"'{path}' cannot be read ({reason}); expected a complete PNG, JPEG or the like.") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the EXIF parser raises whatever it hits; the pixels are fine
        return image.copy()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.float64) * (255.0 / 65535)
        image = Image.fromarray(np.rint(levels.clip(0, 255)).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    straight = image.convert("LA") if image.mode == "La" else image
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, straight.convert("RGBA")).convert("RGB")
