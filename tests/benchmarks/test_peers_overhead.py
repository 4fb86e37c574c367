"""Reference: a session whose runs take as long as a clock of our own says."""

from __future__ import annotations

import time

import pytest

from benchmarks.peers.workers.grip_edge import Runs


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_moment_divides_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)

    class Session:
        def run(self, seconds: float, answer: int = 0) -> int:
            clock.now += seconds
            return answer

    runs = Runs()
    runs.watch(Session, "run")
    session = Session()
    assert session.run(1.0, answer=7) == 7
    clock.now += 10.0  # the runtime's own
    session.run(0.5)
    moment = clock.now
    clock.now += 10.0
    session.run(0.25)
    before, after = runs.around(moment)
    assert (before, after) == pytest.approx((1500.0, 250.0))
    runs.clear()
    assert runs.around(moment) == (0.0, 0.0)
