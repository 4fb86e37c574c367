"""Contestants that are stand-ins, started as the real ones are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.peers import __main__ as command
from benchmarks.peers import preparing, rounds
from benchmarks.peers.contestants import Contestant, Peer, Work
from benchmarks.peers.protocol import Worker

STAND_IN = Path(__file__).with_name("stand_in.py")

MakeContestant = Callable[..., Contestant]


def start_stand_in(work: Work, peer: Peer, contestant: Contestant) -> Worker:
    command = [sys.executable, str(STAND_IN), json.dumps(contestant.settings)]
    return Worker(command, work.process_environment(), work.log(f"worker-{contestant.name}"))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """Workers are stand-ins, whatever module they name."""

    for module in (preparing, rounds, command):
        monkeypatch.setattr(module, "start", start_stand_in)
    return Work(tmp_path / "work", "yardstick", 2)


@pytest.fixture
def contestant(tmp_path: Path) -> MakeContestant:
    def make(name: str, bits: int = 8, **settings: str) -> Contestant:
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.bin").write_bytes(bytes(1000))
        return Contestant(name, "transformers", f"int{bits}", bits, tmp_path / name, lambda: 400_000_000, settings)

    return make
