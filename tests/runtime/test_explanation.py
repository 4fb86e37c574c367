"""The picture that explains. References: the colours' ends, order of brightness against the order of scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grip_edge.runtime import Pipeline
from grip_edge.runtime.explanation import Panel, draw_explanation, heat, panel_of, score_levels
from grip_edge.runtime.views import image_views


def test_heat_runs_from_dark_to_bright() -> None:
    colours = heat(np.linspace(0, 1, 50)).astype(float)
    lightness = colours @ (0.299, 0.587, 0.114)
    assert (np.diff(lightness) > -1).all()
    assert colours[0].max() <= 4
    assert colours[-1].min() >= 160


def test_levels_keep_the_order_and_bear_odd_scores() -> None:
    scores = np.random.default_rng(0).normal(0, 7, 100)
    levels = score_levels(scores.tolist())
    assert (levels.min(), levels.max()) == (0.0, 1.0)
    assert (np.diff(levels[np.argsort(scores)]) >= 0).all()
    assert score_levels([float("-inf"), 1.0, 2.0])[0] == 0.0
    assert score_levels([3.0, 3.0]).tolist() == [0.0, 0.0]
    assert score_levels([float("nan")] * 2).tolist() == [0.0, 0.0]


def test_the_scores_come_with_the_answer(pipeline: Pipeline, picture: Path) -> None:
    result = pipeline.generate(picture, "what is it?", 4, max_new_tokens=1)
    assert len(result.scores) == 16
    best = sorted(np.argsort(result.scores)[::-1][:4].tolist())
    assert list(result.kept_indices) == best  # of a scorer, the highest scores are what is kept
    panel = panel_of(result)
    assert panel.title == "budget 4: 4 of 16 tokens"


def test_patches_are_as_hot_as_their_scores(pipeline: Pipeline) -> None:
    """A black image: in the lower picture, brightness comes from the heat alone."""
    scores = tuple(float(index) for index in range(16))
    panels = [Panel("one", "yes", (3,), scores), Panel("two", "no", (3,), scores[::-1])]
    page = np.asarray(draw_explanation(np.zeros((56, 56, 3), np.uint8), pipeline.manifest, "what?", panels)).astype(int)
    side = image_views(Image.new("RGB", (56, 56)), pipeline.manifest, 420)[0].picture.width
    hot_top = _heat_top(page, side)
    patch = side // 4
    for column, expected in enumerate((range(16), range(15, -1, -1))):
        left = 16 + column * (side + 12)
        middles = [
            page[hot_top + row * patch + patch // 2, left + patch * place + patch // 2].sum()
            for row in range(4)
            for place in range(4)
        ]
        assert np.argsort(middles, kind="stable").tolist()[-6:] == np.argsort(list(expected)).tolist()[-6:]


def _heat_top(page: np.ndarray, side: int) -> int:
    """Both pictures are ``side`` high with a gap of 12 between them; the kept one begins where black begins."""
    column = page[:, 16 + side // 2 + 20].sum(axis=-1)
    black = np.nonzero(column == 0)[0]
    return int(black[0]) + side + 12


@pytest.mark.parametrize("count", [1, 3])
def test_panels_stand_side_by_side(pipeline: Pipeline, picture: Path, count: int) -> None:
    panel = Panel("title", "a long answer " * 10, (1, 2), (0.0,) * 16)
    page = draw_explanation(picture, pipeline.manifest, "what is it? " * 20, [panel] * count)
    side = image_views(Image.open(picture).convert("RGB"), pipeline.manifest, 420)[0].picture.width
    assert page.width == count * side + (count - 1) * 12 + 32
    assert page.height > 2 * side + 100
