"""The measuring: the points of an axis take turns, each in a process of its own, every other round backwards.

A turn waits for other processes to leave the machine alone, as long as patience lasts; one that they disturbed is
taken again, up to three times, and once more by the next run. Each finished turn is a file, so an interrupted run goes
on where it stopped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.scaling.axes import Axis, Point
from benchmarks.scaling.models import bundle_of, our_environment, picture_of
from benchmarks.scaling.others import Watch

Turn = dict[str, Any]

_LOOK_S = 0.5
_TRIES = 3


@dataclass(frozen=True)
class Plan:
    """``others`` is the share of the machine that others may take; ``patience_s`` is for each turn to begin;
    ``minutes`` None is no limit.
    """

    rounds: int = 3
    repeats: int = 2
    threads: int = 2
    others: float = 0.05
    patience_s: float = 60.0
    minutes: float | None = None


def run_rounds(folder: Path, axes: Sequence[Axis], plan: Plan, say: Callable[[str], None]) -> None:
    end = float("inf") if plan.minutes is None else time.monotonic() + 60 * plan.minutes
    for number, axis, point in _turns(axes, plan.rounds):
        path = turn_file(folder, axis, point, number)
        if path.is_file() and json.loads(path.read_text())["others_share"] <= plan.others:
            continue
        if time.monotonic() > end:
            say("The time is over; the same command goes on.")
            return
        _wait_for_calm(plan)
        turn = _least_disturbed(folder, point, plan)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(turn))
        os.replace(unfinished, path)
        last = turn["requests"][-1]
        say(
            f"round {number + 1}: {axis.name} {point.name}: {last['ttft_ms']:.0f} ms, {last['token_ms']:.1f} ms a token"
        )


def turns_of(folder: Path, axis: Axis, point: Point) -> list[Turn]:
    """Those that are there, of all rounds."""
    return [json.loads(path.read_text()) for path in sorted(turn_file(folder, axis, point, 0).parent.glob("*.json"))]


def turn_file(folder: Path, axis: Axis, point: Point, number: int) -> Path:
    return folder / "turns" / axis.name / point.name / f"{number}.json"


def _turns(axes: Sequence[Axis], rounds: int) -> Iterator[tuple[int, Axis, Point]]:
    for number in range(rounds):
        for axis in axes:
            for point in axis.points if number % 2 == 0 else reversed(axis.points):
                yield number, axis, point


def _wait_for_calm(plan: Plan) -> None:
    end = time.monotonic() + plan.patience_s
    while time.monotonic() < end:
        watch = Watch()
        time.sleep(_LOOK_S)
        if watch.others_share() <= plan.others:
            return


def _least_disturbed(folder: Path, point: Point, plan: Plan) -> Turn:
    turns: list[Turn] = []
    while len(turns) < _TRIES:
        turns.append(_take(folder, point, plan))
        if turns[-1]["others_share"] <= plan.others:
            break
    return min(turns, key=lambda turn: float(turn["others_share"]))


def _take(folder: Path, point: Point, plan: Plan) -> Turn:
    settings = {
        "bundle": str(bundle_of(folder, point.model)),
        "picture": str(picture_of(folder, point.model)),
        "point": asdict(point),
        "threads": plan.threads,
        "repeats": plan.repeats,
    }
    command = [sys.executable, "-m", "benchmarks.scaling.worker", json.dumps(settings)]
    done = subprocess.run(command, env=our_environment(), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{point.name} ended with exit code {done.returncode}; its message is above.")
    turn: Turn = json.loads(done.stdout)
    return turn
