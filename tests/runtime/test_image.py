"""Opening images: every kind of unusual file gives the right picture, every bad one a one-line ImageError.

References: the pixels that were put into the file, and transformers' conversion to RGB.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grip_edge.errors import ImageError
from grip_edge.runtime.image import MAX_IMAGE_PIXELS, open_image

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)


def png_header_only(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels: what a decompression bomb looks like from outside."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def assert_same(image: Image.Image, expected: np.ndarray, tolerance: int = 0) -> None:
    assert image.mode == "RGB"
    found = np.asarray(image).astype(int)
    assert found.shape == expected.shape
    difference = np.abs(found - expected.astype(int))
    assert difference.max() <= tolerance, f"max {difference.max()}, mean {difference.mean():.3f}"


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "gif", "webp"])
def test_lossless_formats_give_the_pixels_that_were_saved(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(COLOURS).save(path, **options)
    assert_same(open_image(path), COLOURS)
    assert_same(open_image(str(path)), COLOURS)


def test_one_pixel_is_merely_unusual(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (7, 8, 9)).save(tmp_path / "x.png")
    assert_same(open_image(tmp_path / "x.png"), np.array([[[7, 8, 9]]]))


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: rotate by 90 degrees clockwise to look at it
    Image.fromarray(COLOURS).save(tmp_path / "x.png", exif=exif)
    assert_same(open_image(tmp_path / "x.png"), np.rot90(COLOURS, -1))


def test_damaged_exif_does_not_hide_the_picture(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "x.png", exif=b"Exif\x00\x00II*\x00garbage")
    assert_same(open_image(tmp_path / "x.png"), COLOURS)


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(COLOURS).quantize(64)
    image.save(tmp_path / "x.png")
    assert_same(open_image(tmp_path / "x.png"), np.asarray(image.convert("RGB")))


def test_cmyk(tmp_path: Path) -> None:
    image = Image.fromarray(COLOURS).convert("CMYK")
    image.save(tmp_path / "x.tiff")
    assert_same(open_image(tmp_path / "x.tiff"), COLOURS)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 25700, 65535], [128, 129, 32768, 65407]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "x.png")
    expected = np.rint(levels / 257).astype(int)
    assert expected.max() == 255
    assert_same(open_image(tmp_path / "x.png"), np.repeat(expected[..., None], 3, axis=-1))
    assert_same(open_image(levels), np.repeat(expected[..., None], 3, axis=-1))


def test_transparency_lies_on_white_as_in_transformers() -> None:
    from transformers.image_transforms import convert_to_rgb

    levels = RNG.integers(0, 256, (6, 4, 4)).astype(np.uint8)
    rgba = Image.fromarray(levels, "RGBA")
    palette = Image.fromarray(COLOURS).quantize(8)
    palette.info["transparency"] = bytes([0, 128] + [255] * 6)
    for image in (rgba, rgba.convert("LA"), rgba.convert("PA"), palette):
        assert_same(open_image(image), np.asarray(convert_to_rgb(image, return_numpy=True)))
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert_same(open_image(clear), np.full((2, 2, 3), 255))
    premultiplied = Image.new("La", (2, 2), (100, 255))
    assert_same(open_image(premultiplied), np.full((2, 2, 3), 100))


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:], duration=50)
    assert_same(open_image(tmp_path / "x.gif"), np.full((4, 4, 3), (255, 0, 0)))


def test_arrays() -> None:
    assert_same(open_image(COLOURS), COLOURS)
    assert_same(open_image(COLOURS[:, ::-1]), COLOURS[:, ::-1])
    assert_same(open_image(COLOURS / 255.0), COLOURS)
    assert_same(open_image(COLOURS[:, :, :1]), np.repeat(COLOURS[:, :, :1], 3, axis=-1))
    assert_same(open_image(COLOURS[:, :, 0]), np.repeat(COLOURS[:, :, :1], 3, axis=-1))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 5), np.uint8), "shape [H,W], [H,W,3] or [H,W,4]; got [3, 4, 5]"),
        (np.zeros((0, 4, 3), np.uint8), "4x0 px"),
        (np.full((2, 2), 3.0), "from 3 to 3; expected 0 to 1"),
        (np.full((2, 2), np.nan), "expected 0 to 1"),
        (np.zeros((2, 2), np.int64), "got int64"),
    ],
)
def test_bad_arrays(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        open_image(array)
    assert message in str(caught.value)


def truncated(path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(path, format="PNG")
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "There is no image at"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: path.write_bytes(b""), "is no image that Pillow can read"),
        (lambda path: path.write_bytes(b"just some words"), "is no image that Pillow can read"),
        (truncated, "cannot be read (image file is truncated"),
        (lambda path: path.write_bytes(png_header_only(0, 5)), "is no image that Pillow can read"),
        (
            lambda path: path.write_bytes(png_header_only(10_000, 10_000)),
            f"above the limit of {MAX_IMAGE_PIXELS} pixels",
        ),
        (
            lambda path: path.write_bytes(png_header_only(60_000, 60_000)),
            f"above the limit of {MAX_IMAGE_PIXELS} pixels",
        ),
    ],
    ids=["missing", "folder", "empty", "text", "truncated", "zero-width", "bomb", "huge bomb"],
)
def test_bad_files_say_so_in_one_line(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "x.png"
    make(path)
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_in_memory_are_checked_too() -> None:
    with pytest.raises(ImageError, match="0x3 px"):
        open_image(Image.new("RGB", (0, 3)))
    with pytest.raises(ImageError, match="expected 0 to 65535"):
        open_image(Image.fromarray(np.full((2, 2), 70_000, np.int32)))
