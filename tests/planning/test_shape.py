"""References: transformers' own configurations and models (on the meta device), and published token counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grip_edge.errors import UserError
from grip_edge.hub import HUB_MODELS
from grip_edge.planning.find_config import find_shape
from grip_edge.planning.memory import parameter_count
from grip_edge.planning.published import PUBLISHED
from grip_edge.planning.shape import shape_of
from grip_edge.tiles import TilingSpec, plan_tiles


def transformers_parameters(config: dict[str, Any]) -> int:
    """Elements of the matrices that transformers builds, without the vision layers that are not read."""
    import torch
    import transformers

    kinds = {
        "llava": (transformers.LlavaConfig, transformers.LlavaForConditionalGeneration),
        "llava_next": (transformers.LlavaNextConfig, transformers.LlavaNextForConditionalGeneration),
        "llava_onevision": (transformers.LlavaOnevisionConfig, transformers.LlavaOnevisionForConditionalGeneration),
    }
    make_config, make_model = kinds[config["model_type"]]
    with torch.device("meta"):
        model: Any = make_model(make_config(**config))
    parts = (model.model.language_model.layers, model.model.multi_modal_projector)
    matrices = [p for part in parts for p in part.parameters() if p.ndim == 2]
    head = model.lm_head.weight
    return int(sum(matrix.numel() for matrix in matrices) + 2 * head.numel())


@pytest.mark.parametrize("name", ["llava-1.5-7b", "llava-1.6-mistral-7b", "llava-onevision-0.5b"])
def test_published_shapes_have_the_parameters_that_transformers_builds(name: str) -> None:
    config = PUBLISHED[name]
    model = shape_of(name, config)
    vision = model.vision.layers * (4 * model.vision.width**2 + 2 * model.vision.width * model.vision.mlp_width)
    assert parameter_count(model) - vision == transformers_parameters(config)


@pytest.mark.parametrize(("name", "shrink_above"), [("llava-1.6-vicuna-7b", None), ("llava-onevision-7b", 9)])
def test_no_image_has_more_tokens_and_tiles_and_one_has_as_many(name: str, shrink_above: int | None) -> None:
    """Reference: the tile plans of images that fill each resolution."""
    config = PUBLISHED[name]
    model = shape_of(name, config)
    resolutions = tuple((height, width) for height, width in config["image_grid_pinpoints"])
    spec = TilingSpec(resolutions, model.vision.side_px, model.vision.grid, shrink_above)
    assert model.visual_tokens == max(plan_tiles(size, spec).visual_tokens for size in resolutions)
    assert model.tiles == spec.max_tiles


def test_an_image_of_llava_next_has_2928_tokens_at_most() -> None:
    assert shape_of("next", PUBLISHED["llava-1.6-vicuna-7b"]).visual_tokens == 2928


def test_the_same_models_are_known_as_to_the_export() -> None:
    assert PUBLISHED.keys() == HUB_MODELS.keys()
    assert {name: config["model_type"] for name, config in PUBLISHED.items()} == {
        name: model.family for name, model in HUB_MODELS.items()
    }


def test_a_short_name_a_hub_id_and_a_folder_are_the_same(tmp_path: Path) -> None:
    hub_id, config = HUB_MODELS["llava-1.5-7b"].id, PUBLISHED["llava-1.5-7b"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    by_name, by_id, by_folder = (find_shape(model)[0] for model in ("llava-1.5-7b", hub_id, str(tmp_path)))
    assert by_name == by_id
    assert (by_folder.text, by_folder.vision) == (by_name.text, by_name.vision)


def test_the_toy_is_read_as_the_export_reads_it(toy_checkpoint: Path) -> None:
    from grip_edge.export.checkpoint import open_checkpoint

    model, tokenizer_bytes = find_shape(str(toy_checkpoint))
    spec = open_checkpoint(toy_checkpoint).spec
    assert tokenizer_bytes == (toy_checkpoint / "tokenizer.json").stat().st_size
    assert model.visual_tokens == spec.vision.visual_tokens
    assert (model.vision.width, model.vision.layers) == (spec.vision.width, spec.vision.layers)
    assert (model.text.width, model.text.layers, model.text.head_dim) == (
        spec.text.width,
        spec.text.layers,
        spec.text.head_dim,
    )
    assert (model.text.kv_heads, model.text.vocab_size) == (spec.text.kv_heads, spec.text.vocab_size)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "qwen2_vl"}, "qwen2_vl"),
        ({"model_type": "llava", "text_config": {"model_type": "gpt2"}}, "gpt2"),
        ({"model_type": "llava", "vision_config": {"model_type": "vit"}}, "vit"),
        ({"model_type": "llava_next", "text_config": {}}, "image_grid_pinpoints"),
    ],
)
def test_what_is_not_known_is_named(config: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        shape_of("some model", config)


def test_a_name_that_is_nothing_lists_what_is_known() -> None:
    with pytest.raises(UserError, match=r"llava-tiny.*llava-1\.5-7b"):
        find_shape("no-such-model")
