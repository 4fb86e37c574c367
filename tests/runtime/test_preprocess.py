"""Preprocessing. Reference: transformers' CLIPImageProcessorPil, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from grip_edge.errors import BundleError, ImageError
from grip_edge.manifest import ImageSpec
from grip_edge.runtime.image import MAX_IMAGE_PIXELS
from grip_edge.runtime.preprocess import Preprocessor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
SIZES = [
    (1, 1),
    (2, 300),
    (300, 2),
    (56, 56),
    (55, 57),
    (57, 56),
    (168, 168),
    (640, 480),
    (333, 777),
    (13, 29),
    (31, 7),
]
SPECS = [(56, 56), (168, 168), (224, 200), (50, 63), (61, 64)]  # resize, crop; the last two pad with black


def spec(resize_px: int, crop_px: int, resample: str = "bicubic") -> ImageSpec:
    return ImageSpec(resize_px, crop_px, resample, MEAN, STD)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("resize_px", "crop_px"), SPECS)
def test_equals_transformers_bit_for_bit(size: tuple[int, int], resize_px: int, crop_px: int) -> None:
    from transformers import CLIPImageProcessorPil

    levels = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    image = Image.fromarray(levels)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": resize_px}, crop_size={"height": crop_px, "width": crop_px}
    )
    expected = np.asarray(processor(image)["pixel_values"])
    found = Preprocessor(spec(resize_px, crop_px))(image)
    assert found.dtype == np.float32
    assert found.shape == (1, 3, crop_px, crop_px)
    difference = np.abs(found - expected)
    assert np.array_equal(found, expected), f"max {difference.max()}, mean {difference.mean()}"


def test_other_filters_differ() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 80, 3)).astype(np.uint8))
    bicubic, bilinear = (Preprocessor(spec(56, 56, name))(image) for name in ("bicubic", "bilinear"))
    assert np.abs(bicubic - bilinear).max() > 0.1


def test_an_unknown_filter_is_the_bundles_fault() -> None:
    with pytest.raises(BundleError, match=r"image\.resample is 'magic', expected one of bicubic"):
        Preprocessor(spec(56, 56, "magic"))


def test_a_hair_thin_image_does_not_fill_the_memory() -> None:
    with pytest.raises(ImageError, match=f"above the limit of {MAX_IMAGE_PIXELS} pixels"):
        Preprocessor(spec(336, 336))(Image.new("RGB", (1, 1000)))
