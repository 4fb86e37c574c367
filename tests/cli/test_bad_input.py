"""Everything that the contract lists as bad input: one line and exit code 2, or the right answer if merely unusual.

Each case goes through the real command; ``refused`` also checks that no file was made or changed.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (40, 60, 3)).astype(np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def truncated_jpeg() -> bytes:
    import io

    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (200, 200, 3)).astype(np.uint8)).save(file, format="JPEG")
    return file.getvalue()[:3000]


BAD_IMAGES = {
    "empty": (b"", "is no image that Pillow can read"),
    "not an image": (b"%PDF-1.4 or so", "is no image that Pillow can read"),
    "truncated": (truncated_jpeg(), "cannot be read (image file is truncated"),
    "zero-size": (png_header(0, 4), "is no image that Pillow can read"),
    "decompression bomb": (png_header(12_000, 12_000), "12000x12000 px, above the limit of 89478485 pixels"),
    "huge decompression bomb": (png_header(100_000, 100_000), "is above the limit of 89478485 pixels"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images(refused: Callable[..., str], workplace: Path, kind: str) -> None:
    data, message = BAD_IMAGES[kind]
    (workplace / "bad.png").write_bytes(data)
    line = refused("infer", "bad.png", "what is it?", "--kept-image", "kept.png", "--json")
    assert line.startswith("'bad.png' ")
    assert message in line


def test_missing_image_and_folder_as_image(refused: Callable[..., str], workplace: Path) -> None:
    assert refused("infer", "no.png", "what is it?").startswith("There is no image at 'no.png'")
    (workplace / "folder").mkdir()
    assert refused("infer", "folder", "what is it?").startswith("'folder' cannot be read")


def test_an_image_too_thin_to_be_enlarged(refused: Callable[..., str], workplace: Path) -> None:
    Image.new("L", (1, 60_000)).save(workplace / "thin.png")
    assert "above the limit of 89478485 pixels" in refused("infer", "thin.png", "what is it?")


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(np.rot90(COLOURS, -1)).save(path, exif=exif)


UNUSUAL_IMAGES: dict[str, tuple[Callable[[Path], Any], Image.Image]] = {
    "1x1": (lambda path: Image.new("RGB", (1, 1), (9, 99, 199)).save(path), Image.new("RGB", (1, 1), (9, 99, 199))),
    "CMYK": (
        lambda path: Image.fromarray(COLOURS).convert("CMYK").save(path, format="TIFF"),
        Image.fromarray(COLOURS),
    ),
    "16-bit": (
        lambda path: Image.fromarray(COLOURS[:, :, 0].astype(np.uint16) * 257).save(path),
        Image.fromarray(COLOURS[:, :, 0]),
    ),
    "palette": (
        lambda path: Image.fromarray(COLOURS).quantize(16).save(path),
        Image.fromarray(COLOURS).quantize(16).convert("RGB"),
    ),
    "animated": (
        lambda path: Image.fromarray(COLOURS).save(
            path, save_all=True, append_images=[Image.new("RGB", (60, 40))] * 2, format="PNG"
        ),
        Image.fromarray(COLOURS),
    ),
    "EXIF-rotated": (rotated, Image.fromarray(COLOURS)),
}


@pytest.mark.parametrize("kind", UNUSUAL_IMAGES)
def test_unusual_images_give_the_answer_of_the_plain_one(run: Callable[..., Any], workplace: Path, kind: str) -> None:
    write, plain = UNUSUAL_IMAGES[kind]
    write(workplace / "unusual.png")
    plain.convert("RGB").save(workplace / "plain.png")
    documents = [
        json.loads(run("infer", name, "what is it?", "--max-new-tokens", "8", "--json").stdout)
        for name in ("unusual.png", "plain.png")
    ]
    for name in ("tokens", "kept_indices"):
        assert documents[0][name] == documents[1][name]


@pytest.mark.parametrize("question", ["", "  \n "])
def test_empty_questions(refused: Callable[..., str], question: str) -> None:
    assert refused("infer", "picture.png", question) == "The question is empty; ask something about the image."


def test_very_long_questions(refused: Callable[..., str]) -> None:
    line = refused("infer", "picture.png", "why " * 20_000)
    assert line.startswith("The prompt takes 80")
    assert "the model has 256; shorten the question or lower max-new-tokens." in line


def test_a_prompt_longer_than_the_cache(refused: Callable[..., str]) -> None:
    assert "250 new tokens are asked for" in refused("infer", "picture.png", "why?", "--max-new-tokens", "250")


def test_non_latin_questions_are_answered(run: Callable[..., Any]) -> None:
    for question in ("这是什么颜色?", "Что это?", "ما هذا؟", "🙂?"):
        outcome = run("infer", "picture.png", question, "--max-new-tokens", "4", "--json")
        assert len(json.loads(outcome.stdout)["kept_indices"]) == 4


def test_control_tokens_in_the_question(refused: Callable[..., str]) -> None:
    assert "'<image>', a control token" in refused("infer", "picture.png", "what is <image>?")


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("0", "Budget 0 keeps no token"),
        ("-3", "Budget -3 keeps no token"),
        ("-0.5", "Budget -0.5 is not in (0, 1]"),
        ("nan", "Budget nan is not in (0, 1]"),
        ("inf", "Budget inf is not in (0, 1]"),
        ("1.5", "Budget 1.5 is not in (0, 1]"),
        ("17", "Budget 17 is more than the 16 visual tokens"),
        ("15", "this bundle serves 0.125 to 0.5 (2 to 8 tokens) and 1.0"),
        ("0.01", "this bundle serves 0.125 to 0.5 (2 to 8 tokens) and 1.0"),
        ("many", "Budget 'many' is not a number"),
        ("", "Budget '' is not a number"),
    ],
)
def test_budgets(refused: Callable[..., str], budget: str, message: str) -> None:
    assert message in refused("infer", "picture.png", "what is it?", f"--budget={budget}")
    assert message in refused("bench", f"--budgets={budget}", "--out", "report.md")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-new-tokens", "0"], "max-new-tokens is at least 1; got 0"),
        (["--seed", "1"], "Greedy decoding has no use for a seed"),
        (["--top-p", "0.5"], "Greedy decoding has no use for top-p"),
        (["--temperature", "-1"], "got -1.0"),
        (["--temperature", "nan"], "got nan"),
        (["--temperature", "1", "--top-p", "2"], "top-p is in (0, 1]; got 2.0"),
    ],
)
def test_options_that_cannot_be_meant(refused: Callable[..., str], options: list[str], message: str) -> None:
    assert message in refused("infer", "picture.png", "what is it?", *options)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere/kept.png", "there is no folder 'nowhere'"),
        ("kept.jpg", "expected a name that ends in .png"),
        ("/dev/full/kept.png", "there is no folder '/dev/full'"),
    ],
)
def test_unwritable_kept_image(refused: Callable[..., str], place: str, message: str) -> None:
    assert message in refused("infer", "picture.png", "what is it?", "--kept-image", place)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder where nobody can write, not even root: /proc")
def test_a_folder_where_nobody_can_write(refused: Callable[..., str]) -> None:
    line = refused("infer", "picture.png", "what is it?", "--kept-image", "/proc/kept.png")
    assert line.startswith("Cannot write '/proc/kept.png' (")
    assert refused("bench", "--out", "/proc/report.md").startswith("Cannot write '/proc/report.md' (")


def test_outputs_are_checked_before_the_work(refused: Callable[..., str], workplace: Path) -> None:
    """The place of the output is named although image and bundle are bad, too."""
    line = refused("infer", "no.png", "", "--bundle", "none", "--kept-image", "nowhere/kept.png")
    assert line.startswith("Cannot write 'nowhere/kept.png'")
    assert refused("bench", "--bundle", "none", "--out", "nowhere/x").startswith("Cannot write 'nowhere/x'")
    assert refused("bench", "--out", "/dev/null").startswith("'/dev/null' exists and is no ordinary file")
