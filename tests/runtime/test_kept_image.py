"""The picture of the kept patches. Reference: brightness of the middle of every patch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grip_edge.errors import UserError
from grip_edge.runtime import Pipeline
from grip_edge.runtime.kept_image import check_kept_path, draw_kept, save_kept
from grip_edge.runtime.preprocess import Preprocessor

KEPT = (0, 3, 5, 10, 11, 15)


def middles(picture: Image.Image, rows: int, columns: int) -> np.ndarray:
    """[rows*columns, h, w, 3]: the inner half of each patch, away from the outlines."""
    levels = np.asarray(picture)
    patch = levels.shape[1] // columns
    cells = levels[: rows * patch].reshape(rows, patch, columns, patch, 3).swapaxes(1, 2)
    quarter = patch // 4
    return cells.reshape(rows * columns, patch, patch, 3)[:, quarter:-quarter, quarter:-quarter].astype(float)


def test_exactly_the_kept_patches_are_clear(pipeline: Pipeline, picture: Path) -> None:
    manifest = pipeline.manifest
    drawn = draw_kept(picture, manifest, KEPT)
    assert min(drawn.size) >= 600
    scale = drawn.width // manifest.image.crop_px
    original = middles(Preprocessor(manifest.image).crop(Image.open(picture).convert("RGB"), scale), 4, 4)
    found = middles(drawn, 4, 4)
    clear = [index for index in range(16) if np.array_equal(found[index], original[index])]
    dimmed = [index for index in range(16) if (found[index] <= original[index] * 0.5).all()]
    assert clear == list(KEPT)
    assert dimmed == [index for index in range(16) if index not in KEPT]


def test_kept_regions_are_outlined_where_they_meet_dropped_ones(pipeline: Pipeline) -> None:
    drawn = np.asarray(draw_kept(np.zeros((56, 56, 3), np.uint8), pipeline.manifest, (5, 6)))
    patch = drawn.shape[0] // 4
    lit = drawn.max(axis=-1) > 0
    assert lit[patch, patch : 3 * patch].all()  # above
    assert lit[patch : 2 * patch, patch].all()  # left
    assert not lit[patch + 9 : 2 * patch - 9, 2 * patch].any()  # between the two kept ones
    assert not lit[: patch - 9].any()


def test_a_caption_goes_below(pipeline: Pipeline, picture: Path) -> None:
    plain = draw_kept(picture, pipeline.manifest, KEPT)
    captioned = draw_kept(picture, pipeline.manifest, KEPT, "What is it?\n" + "a long answer " * 20)
    assert captioned.width == plain.width
    assert np.array_equal(np.asarray(captioned)[: plain.height], np.asarray(plain))
    assert np.asarray(captioned)[plain.height :].max() > 200


def test_saved_whole_or_not_at_all(pipeline: Pipeline, picture: Path, tmp_path: Path) -> None:
    drawn = draw_kept(picture, pipeline.manifest, KEPT)
    save_kept(tmp_path / "kept.png", drawn)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "kept.png")), np.asarray(drawn))
    assert [path.name for path in tmp_path.iterdir()] == ["kept.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("kept.jpg", "ends in .png"), ("nowhere/kept.png", "there is no folder"), ("folder.png", "no ordinary file")],
)
def test_places_that_cannot_be_written(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError) as caught:
        check_kept_path(tmp_path / name)
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]
