"""``grip-edge infer``. References: the library's own result, and the document that the issue promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grip_edge.runtime import Pipeline

QUESTION = "what is in it?"


def test_the_answer_goes_to_stdout_and_nothing_else(run: Callable[..., Any], workplace: Path) -> None:
    outcome = run("infer", "picture.png", QUESTION, "--max-new-tokens", "8")
    expected = Pipeline.load("grip-bundle").generate("picture.png", QUESTION, 0.25, 8)
    assert outcome.exit_code == 0
    assert outcome.stdout == expected.answer + "\n"
    assert outcome.stderr == ""
    assert expected.answer


@pytest.mark.parametrize(("budget", "kept"), [("0.25", 4), ("4", 4), ("1.0", 16), ("16", 16)])
def test_json_is_one_document(run: Callable[..., Any], budget: str, kept: int) -> None:
    outcome = run("infer", "picture.png", QUESTION, "--budget", budget, "--max-new-tokens", "6", "--json")
    document = json.loads(outcome.stdout)
    expected = Pipeline.load("grip-bundle").generate("picture.png", QUESTION, budget, 6).to_dict()
    assert set(document) == set(expected)
    for name in ("answer", "tokens", "budget", "kept_indices", "backend", "bundle"):
        assert document[name] == expected[name]
    assert set(document["timings_ms"]) == {"preprocess", "vision", "select", "prefill", "decode", "ttft", "total"}
    assert document["budget"]["kept_tokens"] == kept
    assert isinstance(document["budget"]["requested"], float if "." in budget else int)
    assert document["bundle"] == "grip-bundle"


def test_sampling_options_reach_the_sampler(run: Callable[..., Any]) -> None:
    drawn = [
        run("infer", "picture.png", QUESTION, "--temperature", "3", "--top-p", "0.9", "--seed", seed).stdout
        for seed in ("1", "1", "2")
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_kept_image(run: Callable[..., Any], workplace: Path) -> None:
    arguments = ("infer", "picture.png", QUESTION, "--max-new-tokens", "2", "--kept-image", "kept.png")
    before = {path.name for path in workplace.iterdir()}
    assert run(*arguments, "--budget", "2").exit_code == 0
    few = np.asarray(Image.open("kept.png"), np.float64).mean()
    assert run(*arguments, "--budget", "1.0").exit_code == 0  # replaces it
    assert np.asarray(Image.open("kept.png"), np.float64).mean() > 1.5 * few
    assert {path.name for path in workplace.iterdir()} == before | {"kept.png"}


def test_without_a_bundle_the_error_says_how_to_make_one(refused: Callable[..., str], workplace: Path) -> None:
    (workplace / "grip-bundle").unlink()
    line = refused("infer", "picture.png", QUESTION)
    assert line.startswith("There is no bundle at 'grip-bundle'")
    assert "grip-edge export --model llava-tiny" in line
