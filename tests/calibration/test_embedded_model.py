"""Reference: the model's own card, and fresh questions about validation scenes."""

from __future__ import annotations

import re

import pytest
import torch

from grip_edge.calibration.data import SceneData
from grip_edge.calibration.evaluate import UNPRUNED, accuracies, answer_all
from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.policies import Grip, Random
from grip_edge.calibration.scorer_files import load_scorer
from grip_edge.catalog import EMBEDDED

FOLDER = EMBEDDED["llava-tiny"]
IMAGES = 40


@pytest.fixture(scope="module")
def vlm() -> FrozenVlm:
    return FrozenVlm.load(FOLDER, torch.float32)


def card_accuracy() -> float:
    found = re.search(r"^\| all \| [\d,]+ \| ([\d.]+) \|", (FOLDER / "MODEL_CARD.md").read_text(), re.MULTILINE)
    assert found, "the card has no overall accuracy"
    return float(found[1])


def test_shape_and_size_are_as_promised(vlm: FrozenVlm) -> None:
    assert vlm.visual_tokens >= 144
    assert sum(file.stat().st_size for file in FOLDER.glob("*.safetensors")) <= 12e6
    text = vlm.model.config.text_config
    assert text.num_key_value_heads < text.num_attention_heads


def test_it_answers_as_the_card_says_and_its_scorer_beats_chance(vlm: FrozenVlm) -> None:
    scorer, card = load_scorer(FOLDER / "scorer")
    data = SceneData("validation", vlm.image_side_px, 5)
    table = accuracies(answer_all(vlm, data, IMAGES, [Grip(scorer), Random()], ["0.1"]))
    accuracy = {(row.policy, row.budget): row.accuracy for row in table if row.skill == "all"}
    # 200 questions: four standard errors are at most 0.14
    assert accuracy[UNPRUNED, "1.0"] == pytest.approx(card_accuracy(), abs=0.14)
    assert accuracy["GRIP", "0.1"] > accuracy["random", "0.1"], accuracy
    measured = {
        (row["policy"], row["budget"]): row["accuracy"] for row in card.training["accuracy"] if row["skill"] == "all"
    }
    assert accuracy["GRIP", "0.1"] == pytest.approx(measured["GRIP", "0.1"], abs=0.14)
