"""Reference: the planted truth. Training must find the tokens that matter, from rewards or from demonstrations."""

from __future__ import annotations

from pathlib import Path

import pytest

from grip_edge.calibration.grip.grpo import GrpoSettings
from grip_edge.calibration.grip.train import GripSettings, train_grip
from grip_edge.calibration.grip.warmup import WarmupSettings
from grip_edge.calibration.loop import LoopSettings
from grip_edge.calibration.tprl.autoencoder import AutoencoderSettings
from grip_edge.calibration.tprl.demonstrations import DemonstrationSettings
from grip_edge.calibration.tprl.improve import PpoSettings
from grip_edge.calibration.tprl.train import TprlSettings, train_tprl
from tests.calibration.planted import SummaryVlm, planted_setup, share_found

NONE = LoopSettings(steps=0, learning_rate=1e-3)
CHANCE = 0.25


def loop(steps: int, rate: float) -> LoopSettings:
    return LoopSettings(steps=steps, learning_rate=rate, warmup_steps=5)


@pytest.mark.parametrize("updates", [1, 2])
def test_grpo_alone_finds_what_is_rewarded(tmp_path: Path, updates: int) -> None:
    setup = planted_setup(tmp_path, informed=0.0)
    grpo = GrpoSettings(loop(90, 5e-3), images=24, group=8, budgets=(0.25,), updates_per_draw=updates)
    untrained, trained = train_grip(setup, GripSettings({"width": 32}, WarmupSettings(NONE), grpo))
    assert share_found(setup, untrained) == pytest.approx(CHANCE, abs=0.1)
    assert share_found(setup, trained) > 0.9


def test_the_warm_up_alone_finds_what_is_attended_to(tmp_path: Path) -> None:
    setup = planted_setup(tmp_path, informed=0.5)
    warmup = WarmupSettings(loop(90, 5e-3), images=24)
    undithered = {"width": 32, "dither": 0.0}  # so short a training leaves differences that noise outweighs
    _, trained = train_grip(setup, GripSettings(undithered, warmup, GrpoSettings(NONE)))
    assert share_found(setup, trained) > 0.9


def test_a_scorer_that_does_not_see_the_question_cannot_find_them(tmp_path: Path) -> None:
    setup = planted_setup(tmp_path, informed=0.5)
    settings = GripSettings(
        {"width": 32, "sees_question": False}, WarmupSettings(loop(60, 5e-3), images=24), GrpoSettings(NONE)
    )
    assert share_found(setup, train_grip(setup, settings)[1]) < 0.5


def test_one_scorer_chooses_otherwise_where_the_budget_asks_for_it(tmp_path: Path) -> None:
    setup = planted_setup(tmp_path, 0.0, SummaryVlm())
    grpo = GrpoSettings(loop(200, 5e-3), images=24, group=12, budgets=(1 / 16, 0.25), curriculum=0.0)
    _, aware = train_grip(setup, GripSettings({"width": 32}, WarmupSettings(NONE), grpo))
    assert share_found(setup, aware, kept=1) == pytest.approx(0.5, abs=0.03), "a summary"
    assert share_found(setup, aware, kept=4) > 0.95, "the details; 0.875 with a summary among them"


TPRL_SHAPE = {"width": 32, "code": 8, "encoder_hidden": 32}


def test_ppo_alone_finds_what_is_rewarded(tmp_path: Path) -> None:
    setup = planted_setup(tmp_path, informed=0.0)
    settings = TprlSettings(
        TPRL_SHAPE,
        AutoencoderSettings(loop(60, 5e-3)),
        DemonstrationSettings(NONE),
        ppo=PpoSettings(loop(400, 3e-3), images=32, episodes=4, budgets=(0.25, 0.5), epochs=2, minibatches=4),
    )
    assert share_found(setup, train_tprl(setup, settings)) > 0.8


def test_demonstrations_alone_teach_their_ranking(tmp_path: Path) -> None:
    setup = planted_setup(tmp_path, informed=0.5)
    settings = TprlSettings(
        TPRL_SHAPE,
        AutoencoderSettings(loop(60, 5e-3)),
        DemonstrationSettings(loop(300, 5e-3), images=24),
        ppo=PpoSettings(NONE),
    )
    assert share_found(setup, train_tprl(setup, settings)) > 0.9
