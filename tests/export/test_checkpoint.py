"""Reference: what transformers wrote; and the contract that each broken folder is one clear line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

from grip_edge.calibration.scorer import GripScorer, ScorerConfig
from grip_edge.calibration.scorer_files import ScorerCard
from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint, open_checkpoint
from grip_edge.export.graphs import Graph, bundle_graphs
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.selector import ScorerSelector
from grip_edge.export.tracing import check_weights
from tests.toy_model import VISUAL_TOKENS, save_toy_checkpoint


@pytest.fixture
def broken(toy_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return shutil.copytree(toy_checkpoint, tmp_path / "broken")


def edit_config(folder: Path, *path: str, value: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    owner = config
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def graphs(checkpoint: Checkpoint) -> tuple[Graph, ...]:
    config = ScorerConfig(32, 48, (4, 4))
    return bundle_graphs(checkpoint, ScorerSelector(GripScorer(config), ScorerCard("random", config)))


def check(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    for graph in graphs(checkpoint):
        check_weights(graph, checkpoint)


def message(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        check(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_checkpoint(toy_checkpoint: Path) -> None:
    check(toy_checkpoint)
    spec = open_checkpoint(toy_checkpoint).spec
    assert spec.name == "toy-llava"
    assert spec.vision.visual_tokens == VISUAL_TOKENS
    assert spec.vision.layers == 2  # the third lies behind the selected one
    assert (spec.text.heads, spec.text.kv_heads, spec.text.head_dim) == (4, 2, 12)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (["model_type"], "qwen2_vl", "model_type is 'qwen2_vl'; this version exports 'llava'"),
        (["vision_config", "model_type"], "dinov2", "vision_config.model_type is 'dinov2'"),
        (["vision_config", "model_type"], "siglip_vision_model", "vision_feature_select_strategy is 'default'"),
        (["text_config", "model_type"], "gemma", "text_config.model_type is 'gemma'"),
        (["text_config", "hidden_act"], "gelu", "text_config.hidden_act is 'gelu'; this version exports 'silu'"),
        (["vision_config", "hidden_act"], "relu", "vision_config.hidden_act is 'relu'"),
        (["projector_hidden_act"], "relu", "projector_hidden_act is 'relu'"),
        (["vision_feature_select_strategy"], "full", "vision_feature_select_strategy is 'full'"),
        (["vision_feature_layer"], [-2, -1], "vision_feature_layer is [-2, -1]"),
        (["vision_feature_layer"], -9, "vision_feature_layer is -9"),
        (["vision_config", "image_size"], 57, "vision_config.image_size is 57"),
        (
            ["text_config", "rope_parameters"],
            {"rope_type": "proportional", "rope_theta": 1e4},
            "rope_type is 'proportional'",
        ),
        (
            ["text_config", "rope_parameters"],
            {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
            "partial_rotary_factor is 0.5; this version exports 1.0",
        ),
        (["text_config", "head_dim"], 7, "RoPE requires an even rotary dimension"),
        (["text_config", "num_key_value_heads"], 3, "4 heads of text_config do not share 3 key-value heads evenly"),
        (["text_config", "num_hidden_layers"], "many", "config.json is not valid"),
        (["text_config", "num_hidden_layers"], 3, "no tensor 'language_model.layers.2."),
        (["text_config", "hidden_size"], 40, "of different models"),
        (
            ["vision_config", "image_size"],
            70,
            "position_embedding.weight' has shape [17, 32], config.json says [26, 32]",
        ),
        (["tie_word_embeddings"], False, "no tensor 'lm_head.weight'"),
    ],
)
def test_configurations_that_cannot_be_exported(broken: Path, path: list[str], value: Any, expected: str) -> None:
    edit_config(broken, *path, value=value)
    if path == ["tie_word_embeddings"]:
        edit_config(broken, "text_config", "tie_word_embeddings", value=False)
    assert expected in message(broken)


def test_missing_and_corrupt_files(broken: Path) -> None:
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    assert "its header says" in message(broken)
    weights.write_bytes(b"\xff" * 100)
    assert "no safetensors header" in message(broken)
    weights.write_bytes(whole[:8] + b"{" * 200)
    assert "cannot be read" in message(broken)
    weights.unlink()
    assert "holds neither model.safetensors nor model.safetensors.index.json" in message(broken)
    (broken / "model.safetensors.index.json").write_text("{}")
    assert "has no weight_map" in message(broken)
    (broken / "model.safetensors.index.json").write_text('{"weight_map": {"x": "gone.safetensors"}}')
    assert "lacks 1 of its 1 shards (gone.safetensors)" in message(broken)
    (broken / "config.json").write_text("{not json")
    assert "config.json cannot be read" in message(broken)
    (broken / "config.json").write_text("[]")
    assert "config.json is no JSON object" in message(broken)
    (broken / "config.json").unlink()
    assert "holds no config.json" in message(broken)


def test_missing_tensor(broken: Path) -> None:
    def lose(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["multi_modal_projector.linear_2.bias"]

    edit_weights(broken, lose)
    assert "no tensor 'multi_modal_projector.linear_2.bias'" in message(broken)


def test_quantised_tensors_are_refused(broken: Path) -> None:
    def quantise(tensors: dict[str, torch.Tensor]) -> None:
        name = "multi_modal_projector.linear_1.weight"
        tensors[name] = tensors[name].to(torch.int8)

    edit_weights(broken, quantise)
    assert "is stored as I8; expected one of F32, F16, BF16" in message(broken)


def test_half_precision_tensors_are_read_as_fp32(broken: Path) -> None:
    def halve(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            tensors[name] = tensors[name].bfloat16()

    edit_weights(broken, halve)
    check(broken)
    checkpoint = open_checkpoint(broken)
    assert checkpoint.load("language_model.norm.weight").dtype == torch.float32


def test_names_of_every_age_and_shards_give_the_same_tensors(
    toy_checkpoint: Path, broken: Path, tmp_path: Path
) -> None:
    """Over time transformers wrote ``language_model.model.`` or ``model.language_model.``, CLIP's prefix or none."""
    expected = open_checkpoint(toy_checkpoint)

    def to_newest(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            new = name.replace("language_model.model.", "language_model.")
            tensors["model." + new.replace("vision_tower.", "vision_tower.vision_model.")] = tensors.pop(name)

    edit_weights(broken, to_newest)
    sharded = save_toy_checkpoint(tmp_path / "sharded", shard_size="100KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    for folder in (broken, sharded):
        found = open_checkpoint(folder)
        assert found.tensors.keys() == expected.tensors.keys()
        for name in expected.tensors:
            assert torch.equal(found.load(name), expected.load(name)), name


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_transformers_head(tmp_path: Path, tied: bool) -> None:
    folder = save_toy_checkpoint(tmp_path / "toy", tied=tied)
    check(folder)
    checkpoint = open_checkpoint(folder)
    with quiet_libraries():
        reference = LlavaForConditionalGeneration.from_pretrained(folder)
    decoder = next(graph for graph in graphs(checkpoint) if graph.file_name == "decoder.onnx")
    source = decoder.source("lm_head.weight")
    assert isinstance(source, str)
    expected = reference.state_dict()
    assert torch.equal(checkpoint.load(source), expected["lm_head.weight"])
    same = torch.equal(expected["lm_head.weight"], expected["model.language_model.embed_tokens.weight"])
    assert same == tied


def test_pickled_weights_only(broken: Path) -> None:
    """They are never opened."""
    (broken / "model.safetensors").unlink()
    (broken / "pytorch_model-00001-of-00001.bin").write_bytes(b"not looked at")
    assert "as pytorch_model*.bin only, which can run code when opened; expected safetensors" in message(broken)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(broken: Path, value: float) -> None:
    """Found when the weight is read, before it is written."""

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["multi_modal_projector.linear_1.weight"][1, 2] = value

    edit_weights(broken, spoil)
    check(broken)
    with pytest.raises(UserError, match=rf"'multi_modal_projector.linear_1.weight' holds {value} \(element 34\)"):
        open_checkpoint(broken).read("multi_modal_projector.linear_1.weight")


def test_a_file_that_shrinks_while_it_is_read(broken: Path) -> None:
    checkpoint = open_checkpoint(broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20_000])
    with pytest.raises(UserError, match="the file changed while it was read"):
        checkpoint.read("multi_modal_projector.linear_1.weight")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return save_toy_checkpoint(tmp_path / "sharded", shard_size="100KB")


def test_missing_shards_are_counted_and_named(sharded: Path) -> None:
    shards = sorted(sharded.glob("*.safetensors"))
    shards[1].unlink()
    shards[2].unlink()
    expected = f"lacks 2 of its {len(shards)} shards ({shards[1].name}, {shards[2].name})"
    assert expected in message(sharded)


def test_an_index_that_puts_a_tensor_into_the_wrong_shard(sharded: Path) -> None:
    path = sharded / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    name, right = next(iter(index["weight_map"].items()))
    wrong = next(file for file in index["weight_map"].values() if file != right)
    index["weight_map"][name] = wrong
    path.write_text(json.dumps(index))
    assert f"says that {wrong} holds '{name}', but it does not" in message(sharded)


def test_a_header_whose_shape_and_bytes_disagree(broken: Path) -> None:
    weights = broken / "model.safetensors"
    data = weights.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["multi_modal_projector.linear_2.bias"]["shape"] = [49]
    text = json.dumps(header).encode()
    weights.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    assert "'multi_modal_projector.linear_2.bias' has 192 bytes, its shape [49] says otherwise" in message(broken)
