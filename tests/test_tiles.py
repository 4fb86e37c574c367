"""Images as tiles. References: transformers' packing of features, its processors' counts, its choice of resolution."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor

from grip_edge.tiles import TilingSpec, best_resolution, fitted_size, max_visual_tokens, plan_tiles

NEXT = TilingSpec(((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)), 336, 24)
ONEVISION = TilingSpec(
    tuple((384 * rows, 384 * columns) for rows in range(1, 7) for columns in range(1, 7)), 384, 27, shrink_above=9
)
SPECS = {"next": NEXT, "onevision": ONEVISION}

sides = st.one_of(st.integers(1, 3000), st.sampled_from([1, 2, 335, 336, 337, 384, 672, 768, 1152, 2304]))


def packed(spec: TilingSpec, image: tuple[int, int], features: torch.Tensor, newline: torch.Tensor) -> torch.Tensor:
    """What transformers makes of the projected features of all tiles [A,P,D]: [N,D]."""
    config = SimpleNamespace(
        vision_config=SimpleNamespace(image_size=spec.tile_px, patch_size=spec.tile_px // spec.grid),
        image_grid_pinpoints=[list(size) for size in spec.resolutions],
    )
    options: dict[str, Any] = {"image_newline": newline}
    model: Any
    if spec.shrink_above is None:
        model, options = LlavaNextModel, options | {"vision_feature_select_strategy": "default"}
    else:
        model, options = LlavaOnevisionModel, options | {"vision_aspect_ratio": f"anyres_max_{spec.shrink_above}"}
    pack: Any = model.pack_image_features
    tokens: torch.Tensor = pack(SimpleNamespace(config=config), [features], [image], **options)[0][0]
    return tokens


def counted(spec: TilingSpec, image: tuple[int, int]) -> int:
    """How many image tokens transformers' processor writes into the prompt."""
    own = SimpleNamespace(
        image_processor=SimpleNamespace(image_grid_pinpoints=[list(size) for size in spec.resolutions]),
        patch_size=spec.tile_px // spec.grid,
        num_additional_image_tokens=0,
        num_image_tokens=spec.patches,
        vision_aspect_ratio=f"anyres_max_{spec.shrink_above}",
    )
    processor: Any = LlavaNextProcessor if spec.shrink_above is None else LlavaOnevisionProcessor
    own._get_unpadded_features = lambda *sizes: processor._get_unpadded_features(own, *sizes)
    return int(processor._get_number_of_features(own, *image, spec.tile_px, spec.tile_px))


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=40, deadline=None)
@given(image=st.tuples(sides, sides))
@example(image=(1, 2000))
@example(image=(2304, 2304))
@example(image=(1080, 1920))
def test_a_plan_packs_features_as_transformers_does(name: str, image: tuple[int, int]) -> None:
    spec = SPECS[name]
    height, width = best_resolution(image, spec.resolutions)
    tiles = 1 + height * width // spec.tile_px**2
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(tiles, spec.patches, 2, generator=generator)
    newline = torch.full((2,), 7.0)
    plan = plan_tiles(image, spec)
    parts = features.flatten(0, 1)[torch.from_numpy(plan.sources)]
    made = (parts * torch.from_numpy(plan.weights)[..., None]).sum(dim=1)
    found = torch.cat([made, newline[None]])[torch.from_numpy(plan.order)]
    expected = packed(spec, image, features, newline)
    assert found.shape == expected.shape
    worst = float((found - expected).abs().max())
    assert worst <= 1e-4, f"max difference {worst}"
    assert tiles <= spec.max_tiles
    assert plan.visual_tokens == counted(spec, image) <= max_visual_tokens(spec)
    assert len(plan.sources) == spec.patches + plan.detail[0] * plan.detail[1]


@settings(max_examples=200, deadline=None)
@given(image=st.tuples(sides, sides), name=st.sampled_from(list(SPECS)))
def test_resolution_and_fit_are_transformers(image: tuple[int, int], name: str) -> None:
    resolutions = SPECS[name].resolutions
    best = best_resolution(image, resolutions)
    assert best == select_best_resolution(image, list(resolutions))
    blank = np.broadcast_to(np.uint8(0), (3, *image))
    assert fitted_size(image, best) == get_patch_output_size(blank, best, "channels_first")


def test_known_sizes() -> None:
    """A square image fills four tiles: 576 tokens of the small view, 48 rows of 48 and a newline, 2,928 in all."""
    plan = plan_tiles((800, 800), NEXT)
    assert plan.detail == (48, 48)
    assert plan.visual_tokens == max_visual_tokens(NEXT) == 576 + 48 * 49
    assert NEXT.max_tiles == 5
    assert ONEVISION.max_tiles == 37
    mixed = plan_tiles((2304, 2304), ONEVISION)
    assert mixed.sources.shape == (729 + 81 * 81, 4)  # nine tiles' worth
    assert np.allclose(mixed.weights.sum(axis=1), 1)
