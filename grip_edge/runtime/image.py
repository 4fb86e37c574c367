"""Any picture that Pillow can open, as an 8-bit RGB image: what people see when they look at the file.

EXIF rotation is applied. Transparency is laid on white, as browsers and transformers' CLIP processor do. Sixteen-bit
grey is scaled to eight bits, not clipped. Animations give their first frame. Whatever cannot be read, or is larger
than ``MAX_IMAGE_PIXELS``, is an ``ImageError`` of one line.

Not here: resizing and normalising for the model (``preprocess``). Colour profiles are ignored, as by CLIP's processor.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from grip_edge.errors import ImageError

MAX_IMAGE_PIXELS = 89_478_485  # a quarter of a gigabyte as RGB, Pillow's own line between large and suspicious

ImageSource = str | os.PathLike[str] | Image.Image | NDArray[Any]

_WHITE = (255, 255, 255, 255)


def open_image(source: ImageSource) -> Image.Image:
    """A path, a PIL image, or an array [H,W], [H,W,1], [H,W,3] or [H,W,4] of uint8, uint16 or floats in [0, 1]."""
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source), "The array")
    if isinstance(source, Image.Image):
        check_pixels(*source.size, "The image")
        return _to_rgb(_upright(source), "The image")
    name = f"'{os.fspath(source)}'"
    return _to_rgb(_from_file(Path(source), name), name)


def check_pixels(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name} is {width}x{height} px and so has no pixels; expected at least 1x1.")
    if width * height > MAX_IMAGE_PIXELS:
        raise ImageError(
            f"{name} is {width}x{height} px, above the limit of {MAX_IMAGE_PIXELS} pixels; make it smaller first."
        )


def _from_file(path: Path, name: str) -> Image.Image:
    if not path.exists():
        raise ImageError(f"There is no image at {name}; expected the path of an image file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities; what matters to the user is an error below
            with Image.open(path) as image:
                width, height = image.size
                check_pixels(width, height, name)
                image.load()
                return _upright(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name} is no image that Pillow can read; expected PNG, JPEG, WebP or the like.") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name} is above the limit of {MAX_IMAGE_PIXELS} pixels; make it smaller first.") from None
    except MemoryError:
        raise ImageError(f"{name} does not fit into memory; make it smaller first.") from None
    except Exception as error:  # Pillow's decoders raise whatever their format's parser hits in a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name} cannot be read ({reason}); is the file complete?") from None


def _upright(image: Image.Image) -> Image.Image:
    """A copy, rotated and mirrored as its EXIF data says; as it is where that data is damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the EXIF parser raises whatever it hits; the pixels are fine
        return image.copy()


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        raise ImageError(f"An image array has the shape [H,W], [H,W,3] or [H,W,4]; got {list(array.shape)}.")
    check_pixels(array.shape[1], array.shape[0], "The array")
    if array.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(array))
    if array.dtype == np.uint16:
        return Image.fromarray(_eight_bits(array, 65535, "The array"))
    if np.issubdtype(array.dtype, np.floating):
        return Image.fromarray(_eight_bits(array, 1, "The array"))
    raise ImageError(f"An image array holds uint8, uint16 or floats in [0, 1]; got {array.dtype}.")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_eight_bits(np.asarray(image), 1 if image.mode == "F" else 65535, name))
    if not image.has_transparency_data:
        return image.convert("RGB")
    straight = image.convert("LA") if image.mode == "La" else image
    return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), straight.convert("RGBA")).convert("RGB")


def _eight_bits(values: NDArray[Any], full_scale: int, name: str) -> NDArray[np.uint8]:
    """Scaled from 0..full_scale to 0..255 and rounded."""
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= full_scale):  # also refuses NaN
        raise ImageError(
            f"{name} holds {values.dtype} values from {low:g} to {high:g}; expected 0 to {full_scale}, "
            "or an 8-bit image."
        )
    return np.rint(values.astype(np.float64) * (255.0 / full_scale)).astype(np.uint8)
