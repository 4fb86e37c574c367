"""``grip-edge train`` on the toy model: what it writes, refuses, and survives.

Reference of every interrupted run: the same run without interruption, compared bit for bit.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from grip_edge.calibration.grip import grpo
from grip_edge.calibration.scorer_files import load_scorer
from grip_edge.calibration.tprl.network import TprlScorer
from grip_edge.calibration.training.run import checkpoint_of
from grip_edge.catalog import EMBEDDED
from grip_edge.cli.main import cli
from tests.cli.conftest import Outcome

GRIP = """
[validation]
images = 2
budgets = [0.25]
[grip.scorer]
width = 16
heads = 2
[grip.warmup]
images = 2
first_layer = 0
diversity_weight = 0.25
loop = {steps = 4, checkpoint_every = 2, log_every = 1, warmup_steps = 1}
[grip.grpo]
images = 2
group = 3
updates_per_draw = 2
kl_weight = 0.1
loop = {steps = 40, checkpoint_every = 4, log_every = 1, warmup_steps = 1}
"""
TPRL = """
method = "tprl"
[validation]
images = 2
budgets = [0.25]
[tprl.scorer]
width = 16
heads = 2
code = 8
[tprl.autoencoder]
images = 2
loop = {steps = 3, warmup_steps = 1}
[tprl.demonstrations]
images = 2
first_layer = 0
loop = {steps = 3, warmup_steps = 1}
[tprl.ppo]
images = 2
episodes = 2
epochs = 2
minibatches = 2
loop = {steps = 16, checkpoint_every = 5, log_every = 1, warmup_steps = 1}
"""


@pytest.fixture
def workplace(toy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a model, eight pictures with questions, and settings for either method."""
    (tmp_path / "model").symlink_to(toy_checkpoint)
    lines = []
    for number in range(8):
        levels = np.random.default_rng(number).integers(0, 256, (60, 60, 3)).astype(np.uint8)
        Image.fromarray(levels).save(tmp_path / f"{number}.png")
        asked = [("what is it?", "noise"), ("which colour is it?", ["all", "grey"]), ("where?", "here")]
        lines += [json.dumps({"image": f"{number}.png", "question": q, "answer": a}) for q, a in asked]
    (tmp_path / "train.jsonl").write_text("\n".join(lines[:18]))
    (tmp_path / "validation.jsonl").write_text("\n".join(lines[18:]))
    (tmp_path / "grip.toml").write_text(GRIP)
    (tmp_path / "tprl.toml").write_text(TPRL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(out: str, method: str = "grip", *more: str) -> list[str]:
    common = ["--model", "model", "--data", ".", "--out", out, "--config", f"{method}.toml", "--cpu"]
    return ["train", *common, "--precision", "fp32", *more]


def train(*words: str) -> Outcome:
    result = CliRunner().invoke(cli, words, prog_name="grip-edge")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def refused(workplace: Path) -> Callable[..., str]:
    def call(*words: str) -> str:
        before = sorted(str(path) for path in workplace.rglob("*"))
        outcome = train(*words)
        lines = [line for line in outcome.stderr.splitlines() if line != "Loading model"]
        assert outcome.exit_code == 2, outcome
        assert len(lines) == 1, lines
        assert sorted(str(path) for path in workplace.rglob("*")) == before
        return lines[0]

    return call


def assert_same_weights(found: Path, expected: Path) -> None:
    left, right = (load_file(folder / "scorer.safetensors") for folder in (found, expected))
    assert left.keys() == right.keys()
    differing = [name for name in left if not torch.equal(left[name], right[name])]
    assert not differing, f"{differing[0]}: {(left[differing[0]] - right[differing[0]]).abs().max():.2e}"


def losses(work: Path, stage: str) -> list[tuple[int, float]]:
    records = map(json.loads, (work / f"{stage}.jsonl").read_text().splitlines())
    return [(record["step"], record["loss"]) for record in records if "loss" in record]


def test_a_killed_run_ends_with_the_same_weights(workplace: Path) -> None:
    program = [sys.executable, "-m", "grip_edge.cli.main", *arguments("killed")]
    victim = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = workplace / "killed.work" / "grpo.jsonl"
    deadline = time.monotonic() + 300
    while not (journal.exists() and journal.read_text().count("loss") >= 10):
        assert victim.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    victim.kill()
    assert victim.wait() == -signal.SIGKILL
    assert not (workplace / "killed").exists()
    saved = torch.load(workplace / "killed.work" / "grpo.pt", weights_only=True)["step"]
    assert 0 < saved < 40

    assert train(*arguments("killed", "grip", "--resume")).exit_code == 0
    assert train(*arguments("whole")).exit_code == 0
    assert_same_weights(workplace / "killed", workplace / "whole")
    assert losses(workplace / "killed.work", "grpo") == losses(workplace / "whole.work", "grpo")


def test_ctrl_c_says_how_to_go_on_and_loses_nothing(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = grpo.draw_groups
    calls: list[int] = []

    def interrupted(*inputs: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return draw(*inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(grpo, "draw_groups", interrupted)
    outcome = train(*arguments("cut", "grip", "--set", "seed=5"))
    assert outcome.exit_code == 130
    *_, last = outcome.stderr.splitlines()
    words = "train --model model --data . --out cut --config grip.toml --set seed=5 --precision fp32 --cpu --resume"
    assert last == f"grip-edge: interrupted; continue with:  grip-edge {words}"
    assert torch.load(workplace / "cut.work" / "grpo.pt", weights_only=True)["step"] == 8, "the draw's last update"

    assert train(*words.split()).exit_code == 0
    assert train(*arguments("whole", "grip", "--seed", "5")).exit_code == 0
    assert_same_weights(workplace / "cut", workplace / "whole")


def test_the_card_tells_how_the_scorer_came_about(workplace: Path) -> None:
    outcome = train(*arguments("out", "grip", "--policy-steps", "4"))
    assert outcome.exit_code == 0, outcome
    assert outcome.stdout.startswith("out: GRIP for model\n")
    assert "grip-edge export --model model --scorer out" in outcome.stdout
    scorer, card = load_scorer(workplace / "out")
    assert scorer.config.width == 16
    assert card.method == "GRIP"
    assert card.training["grpo"]["loop"]["steps"] == 4
    assert card.training["grpo"]["group"] == 3
    assert card.training["seed"] == 0
    rows = [(row["policy"], row["budget"], row["skill"], row["questions"]) for row in card.training["accuracy"]]
    assert rows == [("unpruned", "1.0", "all", 6), ("GRIP", "0.25", "all", 6)]
    evaluated = [line for line in (workplace / "out.work/grpo.jsonl").read_text().splitlines() if "accuracy@" in line]
    assert len(evaluated) == 1
    assert list((workplace / "out.work/cache").glob("*/*.safetensors")), "features of one's own images are kept"
    assert sorted(path.name for path in (workplace / "out").iterdir()) == ["scorer.json", "scorer.safetensors"]


def test_tprl_is_trained_and_resumed_in_the_same_way(workplace: Path) -> None:
    assert train(*arguments("whole", "tprl")).exit_code == 0
    scorer, card = load_scorer(workplace / "whole")
    assert card.method == "TPRL"
    assert isinstance(scorer, TprlScorer)
    assert scorer.config.code == 8
    assert train(*arguments("cut", "tprl")).exit_code == 0
    for name in ("scorer.safetensors", "scorer.json"):
        (workplace / "cut" / name).unlink()
    (workplace / "cut").rmdir()
    (workplace / "cut.work" / "ppo.pt").unlink()
    assert train(*arguments("cut", "tprl", "--resume")).exit_code == 0
    assert_same_weights(workplace / "cut", workplace / "whole")


def test_scenes_need_no_files_and_stages_can_be_left_out(workplace: Path) -> None:
    words = ["train", "--model", "model", "--data", "scenes", "--out", "out", "--config", "grip.toml", "--cpu"]
    assert train(*words, "--warmup-steps", "2", "--policy-steps", "0").exit_code == 0
    assert load_scorer(workplace / "out")[1].training["data"] == "rendered scenes, split train"
    assert not (workplace / "out.work" / "cache").exists()
    assert not (workplace / "out.work" / "grpo.pt").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--set", "grip.grpo.groups=8"], "There is no setting 'grip.grpo.groups'; expected one of budgets, clip"),
        (["--set", "grip.grpo.group=many"], "grip.grpo.group"),
        (["--set", "grip.grpo.group=1"], "at least 2; got 1"),
        (["--set", "grip.grpo=1"], "'grip.grpo' is a group of settings"),
        (["--set", "grip.scorer.wide=1"], "There is no setting 'grip.scorer.wide'; expected one of dither, heads,"),
        (["--set", "grip.scorer.grid=1"], "There is no setting 'grip.scorer.grid'"),
        (["--set", "grip.scorer.width=wide"], 'grip.scorer: wrong value type for field "width"'),
        (["--set", "grip.scorer.width=15"], "multiple of its heads"),
        (["--set", "group"], "key=value"),
        (["--set", "grip.grpo.reward=beauty"], "no reward 'beauty'; expected one of log_probability"),
        (["--set", "grip.grpo.updates_per_draw=0"], "updates_per_draw is at least 1; got 0"),
        (["--set", "grip.grpo.spread_floor=-1"], "spread_floor is at least 0; got -1"),
        (["--method", "sft"], "no method 'sft'; expected one of grip, tprl"),
        (["--precision", "int4"], "no precision 'int4'; expected one of bf16, fp16, fp32"),
        (["--config", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--model", "nowhere"], "There is no model 'nowhere'"),
        (["--data", "nowhere"], "There is no data 'nowhere'"),
        (["--resume"], "nothing to resume in 'out.work'"),
        (["--work", "."], "no work folder of a training"),
        (["--out", "model"], "'model' exists already"),
        (["--out", "model", "--force"], "not a scorer's folder"),
    ],
)
def test_mistakes_are_refused_in_one_line(refused: Callable[..., str], words: list[str], problem: str) -> None:
    assert problem in refused(*arguments("out", "grip", *words))


def test_a_run_is_neither_overwritten_nor_continued_as_another(workplace: Path, refused: Callable[..., str]) -> None:
    short = ["--warmup-steps", "1", "--policy-steps", "2"]
    assert train(*arguments("out", "grip", *short)).exit_code == 0
    assert "'out' exists already" in refused(*arguments("out", "grip", *short))
    elsewhere = [*short, "--work", "out.work"]
    assert "'out.work' holds a run already" in refused(*arguments("other", "grip", *elsewhere))
    different = refused(*arguments("other", "grip", *elsewhere, "--resume", "--seed", "1"))
    assert "has settings.seed = 0, not 1" in different
    assert train(*arguments("out", "grip", *short, "--force", "--seed", "1")).exit_code == 0
    assert load_scorer(workplace / "out")[1].training["seed"] == 1


def test_all_settings_are_shown_and_can_be_given_back(workplace: Path) -> None:
    shown = train(*arguments("out", "grip", "--show-settings")).stdout
    assert json.loads(shown)["grip"]["grpo"]["loop"]["steps"] == 40
    (workplace / "all.json").write_text(shown)
    assert train(*arguments("out", "grip", "--config", "all.json", "--show-settings")).stdout == shown
    assert not (workplace / "out.work").exists()


def test_a_hub_id_is_left_to_transformers_and_a_name_is_looked_up(workplace: Path) -> None:
    assert checkpoint_of("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"
    assert checkpoint_of("llava-tiny") == EMBEDDED["llava-tiny"]
    (workplace / "models").mkdir()
    (workplace / "models" / "mine").symlink_to(workplace / "model")
    assert checkpoint_of("models/mine") == Path("models/mine")


def test_a_missing_extra_is_named_with_the_command_that_brings_it(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert refused(*arguments("out")).endswith("run pip install 'grip-edge[train]'")


def test_help_begins_with_a_verb_and_shows_an_example() -> None:
    shown = train("train", "--help")
    assert shown.exit_code == 0
    assert "Train a scorer" in shown.stdout
    assert "  grip-edge train --model llava-tiny --data scenes" in shown.stdout
