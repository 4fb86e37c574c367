"""References: an uninterrupted run, and a least-squares problem whose steps can be written down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from grip_edge.calibration.journal import Journal
from grip_edge.calibration.loop import LoopSettings, StepFunction, run_steps
from grip_edge.errors import UserError

SETTINGS = LoopSettings(steps=12, learning_rate=0.1, warmup_steps=2, checkpoint_every=4, log_every=1)


def problem() -> tuple[nn.Parameter, StepFunction]:
    weight = nn.Parameter(torch.zeros(3))

    def step(number: int) -> tuple[Tensor, dict[str, float]]:
        target = torch.randn(3, generator=torch.Generator().manual_seed(number))
        return (weight - target).square().sum(), {"reward": float(number)}

    return weight, step


def solve(folder: Path, stop_at: int | None = None, stride: int = 1) -> Tensor:
    """``stop_at``: Ctrl-C in the middle of that step."""
    weight, step = problem()

    def interrupted(number: int) -> tuple[Tensor, dict[str, float]]:
        if number == stop_at:
            signal.raise_signal(signal.SIGINT)
        return step(number)

    run_steps("fit", [{"params": [weight], "lr": 0.1}], interrupted, SETTINGS, folder, stride=stride)
    return weight.detach()


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("stride", "saved"), [(1, 6), (3, 6), (4, 8)])
def test_ctrl_c_finishes_the_stride_and_the_run_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, stride: int, saved: int
) -> None:
    expected = solve(tmp_path / "whole", stride=stride)
    with pytest.raises(KeyboardInterrupt):
        solve(tmp_path / "cut", stop_at=5, stride=stride)
    assert torch.load(tmp_path / "cut" / "fit.pt", weights_only=True)["step"] == saved
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert torch.equal(solve(tmp_path / "cut", stride=stride), expected)
    assert steps_in(tmp_path / "cut" / "fit.jsonl") == list(range(12))


def test_a_second_ctrl_c_strikes_at_once(tmp_path: Path) -> None:
    weight, _ = problem()

    def step(number: int) -> tuple[Tensor, dict[str, float]]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")

    with pytest.raises(KeyboardInterrupt):
        run_steps("fit", [{"params": [weight], "lr": 0.1}], step, SETTINGS, tmp_path)
    assert not (tmp_path / "fit.pt").exists()


def test_checkpoints_lie_between_strides_only_and_the_scorer_is_measured_there(tmp_path: Path) -> None:
    weight, step = problem()
    measured: list[int] = []

    def evaluate(number: int) -> dict[str, float]:
        measured.append(number)
        return {"accuracy": 0.5}

    run_steps("fit", [{"params": [weight], "lr": 0.1}], step, SETTINGS, tmp_path, evaluate, stride=3)
    assert measured == [5, 8, 11], "after 4, 8 and 12 steps, at the next end of a stride"


def test_the_journal_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "fit.jsonl").write_text('{"step": 0}\n{"step": 1}\n{"step": 2}\n{"st')
    journal = Journal(tmp_path, "fit", first_step=2)
    journal.write({"step": 2, "loss": 1.0})
    journal.close()
    assert steps_in(tmp_path / "fit.jsonl") == [0, 1, 2]


def test_tensorboard_gets_the_same_records_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Writer:
        seen: ClassVar[list[tuple[str, float, int]]] = []

        def __init__(self, folder: Path, purge_step: int) -> None:
            assert (folder, purge_step) == (tmp_path / "tensorboard" / "fit", 3)

        def add_scalar(self, key: str, value: float, step: int) -> None:
            self.seen.append((key, value, step))

        def close(self) -> None:
            self.seen.append(("closed", 0.0, 0))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    journal = Journal(tmp_path, "fit", first_step=3)
    journal.write({"step": 3, "loss": 0.5, "reward": 2.0})
    journal.close()
    assert Writer.seen == [("loss", 0.5, 3), ("reward", 2.0, 3), ("closed", 0.0, 0)]


def test_a_loop_without_sense_is_refused() -> None:
    with pytest.raises(UserError, match="got -1, 200 and 20"):
        LoopSettings(steps=-1, learning_rate=1.0)


_TWO_WORKERS = """
import sys
from pathlib import Path
import torch
from torch import nn
from grip_edge.calibration.loop import LoopSettings, run_steps
from grip_edge.calibration.workers import Workers

workers = Workers.launched(cpu=True)
weight = nn.Parameter(torch.zeros(3))
targets = torch.tensor([[1.0, 2.0, 3.0], [3.0, -4.0, 5.0]])

def step(number):
    return (weight - targets[workers.index]).square().sum() / 2, {}

settings = LoopSettings(steps=5, learning_rate=0.1, warmup_steps=1, clip_norm=1e9, weight_decay=0.0)
run_steps("fit", [{"params": [weight], "lr": 0.1}], step, settings, Path(sys.argv[1]), workers=workers)
assert workers.any(workers.index == 1) and not workers.any(False)
workers.leave()
Path(sys.argv[1], f"weight-{workers.index}-of-{workers.count}").write_text(repr(weight.tolist()))
"""


def test_two_workers_learn_as_one_from_the_mean_of_their_gradients(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(_TWO_WORKERS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = [str(tmp_path / "program.py"), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    weights = [(tmp_path / f"weight-{index}-of-2").read_text() for index in range(2)]
    assert weights[0] == weights[1]

    weight = nn.Parameter(torch.zeros(3))
    mean = torch.tensor([2.0, -1.0, 4.0])
    settings = LoopSettings(steps=5, learning_rate=0.1, warmup_steps=1, clip_norm=1e9, weight_decay=0.0)
    group = {"params": [weight], "lr": 0.1}
    run_steps("fit", [group], lambda _: ((weight - mean).square().sum() / 2, {}), settings, tmp_path / "one")
    found = torch.tensor(json.loads(weights[0]))
    assert torch.allclose(found, weight.detach(), atol=1e-6), (found - weight).abs().max()
    assert (tmp_path / "fit.jsonl").read_text().count("\n") == 2, "only the main worker writes"
