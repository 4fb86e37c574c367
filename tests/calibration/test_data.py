"""References: hand-written JSONL files, the scenes drawn directly, and the runtime's reader of images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grip_edge.calibration.data import JsonlData, SceneData, open_data, open_training_data
from grip_edge.calibration.data.image_file import read_image
from grip_edge.calibration.data.jsonl import split_of
from grip_edge.calibration.scenes import ask, draw_scene, render, scene_seed
from grip_edge.calibration.scenes.presets import PRESETS
from grip_edge.errors import ImageError, UserError
from grip_edge.runtime.image import open_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 images of different sizes in images/, no questions yet."""
    (tmp_path / "images").mkdir()
    for number in range(40):
        levels = np.random.default_rng(number).integers(0, 256, (8, 10 + number, 3)).astype(np.uint8)
        Image.fromarray(levels).save(tmp_path / "images" / f"{number:02}.png")
    return tmp_path


def write(path: Path, *entries: object) -> Path:
    path.write_text("\n".join(e if isinstance(e, str) else json.dumps(e) for e in entries) + "\n", encoding="utf-8")
    return path


def line(number: int, question: str = "What is it?", answer: object = "noise", **more: object) -> dict[str, object]:
    return {"image": f"images/{number:02}.png", "question": question, "answer": answer, **more}


def test_lines_of_one_image_belong_together_and_order_is_kept(folder: Path) -> None:
    path = write(
        folder / "some.jsonl",
        line(3, "Which colour?", ["red", "blue", "blue"], group="attribute"),
        line(1, " How many? ", "two", category=7, source="else"),
        "",
        line(3, "Where?", "here", skill="place"),
    )
    data = JsonlData.open(path)
    assert len(data) == 2
    asked = data.take([1, 0, 0])
    assert [image.size for image in asked.images] == [(11, 8), (13, 8), (13, 8)]
    assert asked.image_of == (0, 1, 1, 2, 2)
    assert [q.text for q in asked.questions] == ["How many?", "Which colour?", "Where?", "Which colour?", "Where?"]
    first = asked.questions[1]
    assert (first.answer, first.references, first.group) == ("blue", ("red", "blue", "blue"), "attribute")
    assert [q.group for q in asked.questions[:3]] == ["7", "attribute", "place"]
    assert len(JsonlData.open(path, questions_per_image=1).take([0]).questions) == 1


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object"),
        ({"question": "?", "answer": "a"}, "'image', got None"),
        ({"image": "images/00.png", "question": " ", "answer": "a"}, "'question', got ' '"),
        ({"image": "images/00.png", "question": "?", "answer": []}, "'answer', got \\[\\]"),
        ({"image": "images/00.png", "question": "?", "answer": ["a", 2]}, "'answer', got \\['a', 2\\]"),
        ({"image": "images/no.png", "question": "?", "answer": "a"}, "there is no image 'images/no.png'"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(folder: Path, entry: object, problem: str) -> None:
    path = write(folder / "bad.jsonl", line(0), entry)
    with pytest.raises(UserError, match=rf"bad\.jsonl, line 2: .*{problem}"):
        JsonlData.open(path)


def test_files_without_questions_or_in_another_encoding_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="holds no questions"):
        JsonlData.open(write(folder / "empty.jsonl", ""))
    (folder / "latin.jsonl").write_bytes("ä".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        JsonlData.open(folder / "latin.jsonl")


def test_a_folder_with_split_files(folder: Path) -> None:
    write(folder / "train.jsonl", line(0), line(1))
    write(folder / "test.jsonl", line(2))
    assert len(open_data(str(folder), "train", 56, 4)) == 2
    assert open_data(str(folder), "test", 56, 4).take([0]).images[0].size == (12, 8)
    with pytest.raises(UserError, match=r"neither validation\.jsonl nor data\.jsonl"):
        open_data(str(folder), "validation", 56, 4)


def test_one_file_is_split_by_the_hash_of_the_image(folder: Path) -> None:
    write(folder / "data.jsonl", *(line(number) for number in range(40)))
    sizes = {
        split: {image.size for image in data.take(range(len(data))).images}
        for split in ("train", "validation", "test")
        for data in [open_data(str(folder), split, 56, 4)]
    }
    assert not sizes["train"] & sizes["validation"]
    assert not sizes["train"] & sizes["test"]
    assert len(sizes["train"] | sizes["validation"] | sizes["test"]) == 40
    shares = [split_of(f"images/{number}.jpg") for number in range(20_000)]
    assert shares.count("train") / 20_000 == pytest.approx(0.90, abs=0.01)
    assert shares.count("test") / 20_000 == pytest.approx(0.05, abs=0.01)


def test_training_on_one_file_holds_images_back(folder: Path) -> None:
    path = write(folder / "mine.jsonl", *(line(n, f"Question {k}?") for n in range(40) for k in range(3)))
    train, validation = open_training_data(str(path), 56, 2)
    assert len(train) + len(validation) <= 40
    assert min(len(train), len(validation)) > 0
    assert len(train.take([0]).questions) == 3, "all questions, to be drawn from"
    assert len(open_data(str(path), "test", 56, 2)) == 40, "a file by itself is asked in whole"
    few = write(folder / "few.jsonl", line(0))
    with pytest.raises(UserError, match="too few images"):
        open_training_data(str(few), 56, 2)


def test_scenes_are_those_of_the_renderer() -> None:
    data = open_data("scenes", "validation", 56, 3)
    asked = data.take([5])
    scene = draw_scene(scene_seed("validation", 5))
    assert asked.images[0].tobytes() == render(scene, 56).tobytes()
    expected = [(q.text, q.answer, (q.answer,), q.skill) for q in ask(scene, 3)]
    assert [(q.text, q.answer, q.references, q.group) for q in asked.questions] == expected
    assert data == SceneData("validation", 56, 3)


def test_presets_of_scenes() -> None:
    data = open_data("scenes:crowded", "test", 168, 2)
    assert data.name == "rendered scenes (crowded), split test"
    assert data == SceneData("test", 168, 2, PRESETS["crowded"].settings, preset="crowded")
    with pytest.raises(UserError, match="no scenes 'huge'"):
        open_training_data("scenes:huge", 168, 2)


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no data"):
        open_data(str(tmp_path / "nowhere"), "train", 56, 4)
    with pytest.raises(UserError, match="Unknown split 'dev'"):
        open_data("scenes", "dev", 56, 4)


def images_of_all_kinds() -> dict[str, Image.Image]:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (9, 7, 4)).astype(np.uint8), "RGBA")
    return {
        "rgb.png": colour.convert("RGB"),
        "transparent.png": colour,
        "palette.png": colour.convert("P"),
        "cmyk.jpg": colour.convert("CMYK"),
        "grey.png": colour.convert("L"),
        "sixteen.png": Image.fromarray(rng.integers(0, 65536, (9, 7)).astype(np.uint16)),
    }


@pytest.mark.parametrize("name", images_of_all_kinds())
def test_images_are_read_as_on_the_device(tmp_path: Path, name: str) -> None:
    images_of_all_kinds()[name].save(tmp_path / name)
    assert read_image(tmp_path / name).tobytes() == open_image(tmp_path / name).tobytes()


def test_exif_rotation_and_the_first_frame(tmp_path: Path) -> None:
    colour = images_of_all_kinds()["rgb.png"]
    exif = Image.Exif()
    exif[0x0112] = 6
    colour.save(tmp_path / "turned.jpg", exif=exif)
    colour.save(tmp_path / "moving.gif", save_all=True, append_images=[colour.rotate(180)])
    assert read_image(tmp_path / "turned.jpg").size == (9, 7)
    for name in ("turned.jpg", "moving.gif"):
        assert read_image(tmp_path / name).tobytes() == open_image(tmp_path / name).tobytes()


def test_damaged_images_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    images_of_all_kinds()["rgb.png"].save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:80])
    for name in ("text.png", "cut.png"):
        with pytest.raises(ImageError, match=name) as error:
            read_image(tmp_path / name)
        assert "\n" not in str(error.value)
