"""Reference: the processor that transformers loads from the same folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint, open_checkpoint
from grip_edge.export.image_settings import freeze_image
from grip_edge.export.processor import load_processor
from grip_edge.export.prompt import freeze_prompt
from tests.toy_model import CHAT_TEMPLATE, IMAGE_SIDE_PX


@pytest.fixture
def folder(toy_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(toy_checkpoint, tmp_path / "copy")


def edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text())
    data.update(changes)
    path.write_text(json.dumps(data))


def edit_image_processor(folder: Path, **changes: Any) -> None:
    path = folder / "processor_config.json"
    edit(path, image_processor=json.loads(path.read_text())["image_processor"] | changes)


def freeze(folder: Path) -> Any:
    checkpoint, processor = open_checkpoint(folder), load_processor(folder)
    return freeze_prompt(checkpoint, processor), freeze_image(checkpoint, processor)


def message(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        freeze(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("question", ["Is it red?", "{image} 'quoted' \n two lines", "что это"])
def test_the_frozen_template_renders_as_the_processor_does(checkpoint: Checkpoint, question: str) -> None:
    processor = load_processor(checkpoint.folder)
    prompt = freeze_prompt(checkpoint, processor)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    expected = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert prompt.template.replace("{question}", question) == expected
    assert prompt.template == "USER: <image>\n{question} ASSISTANT:"
    assert prompt.image_token_id == processor.tokenizer.convert_tokens_to_ids("<image>")


def test_image_settings(checkpoint: Checkpoint) -> None:
    processor = load_processor(checkpoint.folder)
    image = freeze_image(checkpoint, processor)
    assert (image.resize_px, image.crop_px, image.resample) == (IMAGE_SIDE_PX, IMAGE_SIDE_PX, "bicubic")
    assert image.mean == tuple(processor.image_processor.image_mean)
    assert image.std == tuple(processor.image_processor.image_std)


def test_resize_may_exceed_the_crop(folder: Path) -> None:
    edit_image_processor(folder, size={"shortest_edge": 70}, resample=2)
    image = freeze(folder)[1]
    assert (image.resize_px, image.crop_px, image.resample) == (70, IMAGE_SIDE_PX, "bilinear")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"do_center_crop": False}, "skips a step"),
        ({"do_normalize": False}, "skips a step"),
        ({"size": {"height": 56, "width": 56}}, "expected a shortest_edge"),
        ({"crop_size": {"height": 42, "width": 42}}, "crops to 42x42 px; the vision tower reads 56x56 px"),
        ({"size": {"shortest_edge": 50}}, "resizes to 50 px, below its crop"),
        ({"rescale_factor": 1.0}, "rescale_factor is 1.0; expected 1/255"),
    ],
)
def test_image_settings_that_the_device_does_not_have(folder: Path, changes: dict[str, Any], expected: str) -> None:
    edit_image_processor(folder, **changes)
    assert expected in message(folder)


@pytest.mark.parametrize(
    ("generation", "text", "expected"), [([5, 2], 2, (5, 2)), (7, 2, (7,)), (None, 2, (2,)), (None, [2, 9], (2, 9))]
)
def test_stop_tokens(folder: Path, generation: Any, text: Any, expected: tuple[int, ...]) -> None:
    """Generation's setting first, else the decoder's; one or several."""
    edit(folder / "generation_config.json", eos_token_id=generation)
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", text_config=config["text_config"] | {"eos_token_id": text})
    assert freeze(folder)[0].stop_token_ids == expected
    (folder / "generation_config.json").unlink()
    assert freeze(folder)[0].stop_token_ids == (tuple(text) if isinstance(text, list) else (text,))


def test_no_stop_token(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", text_config=config["text_config"] | {"eos_token_id": None})
    assert "names no eos_token_id" in message(folder)


def test_missing_and_foreign_files(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE.replace("<image>", "<image><image>"))
    assert "holds the image token <image> 2 times; expected once" in message(folder)
    (folder / "chat_template.jinja").write_text("{{ messages[0]['role'] }} <image>")
    assert "holds the question 0 times" in message(folder)
    (folder / "chat_template.jinja").unlink()
    assert "has no chat template" in message(folder)
    edit(folder / "config.json", image_token_index=4)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    assert "in the tokenizer but 4 in config.json" in message(folder)
    (folder / "processor_config.json").write_text("{broken")
    assert "The processor in" in message(folder)
    (folder / "tokenizer.json").unlink()
    assert "holds no tokenizer.json" in message(folder)
