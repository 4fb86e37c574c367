"""``grip-edge explain``. References: ``infer`` on the same budgets; the picture itself is tested with the runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

QUESTION = "what is it?"


def test_answers_are_those_of_infer(run: Callable[..., Any], workplace: Path) -> None:
    limit = ("--max-new-tokens", "4")
    outcome = run("explain", "picture.png", QUESTION, "--budgets", "4,1.0,4", *limit, "--out", "why.png")
    assert outcome.exit_code == 0
    expected = [run("infer", "picture.png", QUESTION, "--budget", budget, *limit).stdout for budget in ("4", "1.0")]
    assert outcome.stdout == f"4 (4 of 16): {expected[0]}1.0 (16 of 16): {expected[1]}"
    with Image.open(workplace / "why.png") as page:
        assert page.width > 800


def test_json_holds_the_scores(run: Callable[..., Any]) -> None:
    outcome = run("explain", "picture.png", QUESTION, "--budgets", "4", "--out", "why.png", "--json")
    (document,) = json.loads(outcome.stdout)
    assert len(document["scores"]) == 16
    assert len(document["kept_indices"]) == 4


def test_mistakes_leave_nothing(refused: Callable[..., str]) -> None:
    assert "this bundle serves" in refused("explain", "picture.png", QUESTION, "--budgets", "4,0.9", "--out", "why.png")
    assert "ends in .png" in refused("explain", "picture.png", QUESTION, "--out", "why.jpg")
    assert "names no budget" in refused("explain", "picture.png", QUESTION, "--budgets", ",", "--out", "why.png")
    assert "There is no image" in refused("explain", "none.png", QUESTION, "--out", "why.png")
