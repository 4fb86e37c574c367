"""Squares and tiles. References: transformers' SigLIP, LLaVA-NeXT and LLaVA-OneVision processors, bit for bit."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from grip_edge.manifest import ImageSpec
from grip_edge.runtime.preprocess import Preprocessor
from grip_edge.tiles import TilingSpec
from tests.runtime.test_preprocess import MEAN, STD

NEXT_RESOLUTIONS = ((28, 56), (56, 28), (56, 56), (84, 28), (28, 84))
ONEVISION_RESOLUTIONS = tuple((30 * rows, 30 * columns) for rows in range(1, 4) for columns in range(1, 4))
HALF = (0.5, 0.5, 0.5)


@cache
def pair(kind: str) -> tuple[Any, Preprocessor]:
    """transformers' processor and ours."""
    from transformers import LlavaNextImageProcessorPil, LlavaOnevisionImageProcessorPil, SiglipImageProcessorPil

    if kind == "siglip":
        theirs: Any = SiglipImageProcessorPil(size={"height": 30, "width": 30}, image_mean=HALF, image_std=HALF)
        return theirs, Preprocessor(ImageSpec(30, 30, "bicubic", HALF, HALF, stretch=True))
    if kind == "next":
        theirs = LlavaNextImageProcessorPil(
            size={"shortest_edge": 28},
            crop_size={"height": 28, "width": 28},
            image_grid_pinpoints=[list(size) for size in NEXT_RESOLUTIONS],
        )
        tiling = TilingSpec(NEXT_RESOLUTIONS, 28, 4)
        return theirs, Preprocessor(ImageSpec(28, 28, "bicubic", MEAN, STD, stretch=True, tiling=tiling))
    theirs = LlavaOnevisionImageProcessorPil(
        size={"height": 30, "width": 30},
        image_grid_pinpoints=[list(size) for size in ONEVISION_RESOLUTIONS],
        image_mean=HALF,
        image_std=HALF,
    )
    tiling = TilingSpec(ONEVISION_RESOLUTIONS, 30, 4, shrink_above=4)
    return theirs, Preprocessor(ImageSpec(30, 30, "bicubic", HALF, HALF, stretch=True, tiling=tiling))


@pytest.mark.parametrize("kind", ["siglip", "next", "onevision"])
@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 200), height=st.integers(1, 200), seed=st.integers(0, 9))
@example(width=1, height=200, seed=0)
@example(width=200, height=1, seed=0)
@example(width=56, height=56, seed=0)
@example(width=30, height=60, seed=0)
def test_equals_transformers_bit_for_bit(kind: str, width: int, height: int, seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    theirs, ours = pair(kind)
    image = Image.fromarray(levels)
    expected = np.asarray(theirs(image)["pixel_values"])
    expected = expected if kind == "siglip" else expected[0]
    found = ours(image)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    difference = np.abs(found - expected)
    assert np.array_equal(found, expected), f"max {difference.max()}, mean {difference.mean()}"
    plan = ours.plan(image)
    assert (plan is None) == (kind == "siglip")
