"""References: transformers' own configurations and models (on the meta device), and published token counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grip_edge.errors import UserError
from grip_edge.planning.find_config import find_shape
from grip_edge.planning.memory import parameter_count
from grip_edge.planning.published import PUBLISHED
from grip_edge.planning.shape import shape_of


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
    return sum(matrix.numel() for matrix in matrices) + 2 * head.numel()


@pytest.mark.parametrize("name", ["llava-1.5-7b", "llava-1.6-mistral-7b", "llava-onevision-0.5b"])
def test_published_shapes_have_the_parameters_that_transformers_builds(name: str) -> None:
    config = PUBLISHED[name][1]
    model = shape_of(name, config)
    vision = model.vision.layers * (4 * model.vision.width**2 + 2 * model.vision.width * model.vision.mlp_width)
    assert parameter_count(model) - vision == transformers_parameters(config)


def test_tokens_of_tiled_images() -> None:
    """LLaVA-NeXT's 2,928 and LLaVA-OneVision's 729 + 81 x 82 at most, in 5 and 37 tiles."""
    tokens = {name: shape_of(name, config).visual_tokens for name, (_, config) in PUBLISHED.items()}
    tiles = {name: shape_of(name, config).tiles for name, (_, config) in PUBLISHED.items()}
    assert tokens["llava-1.5-7b"] == 576
    assert (tokens["llava-1.6-vicuna-7b"], tiles["llava-1.6-vicuna-7b"]) == (2928, 5)
    assert (tokens["llava-onevision-7b"], tiles["llava-onevision-7b"]) == (729 + 81 * 82, 37)


def test_a_short_name_a_hub_id_and_a_folder_are_the_same(tmp_path: Path) -> None:
    hub_id, config = PUBLISHED["llava-1.5-7b"]
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
