"""Reference: a runtime whose own work between two runs is known, as far as a clock can tell."""

from __future__ import annotations

import time

from benchmarks.peers.workers.grip_edge import Runs

RUNS = 200


class Session:
    def run(self) -> int:
        return 3


def busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_what_clocks_take_is_no_overhead_and_what_lies_between_runs_is() -> None:
    """Runs of no length, so that a clock's time is most of all; then the same with work between them."""
    runs = Runs()

    class Watched(Session):
        pass

    runs.watch(Watched, "run")
    session = Watched()

    def outside_ms(between_ms: float) -> float:
        runs.clear()
        start = time.monotonic()
        for _ in range(RUNS):
            assert session.run() == 3
            busy(between_ms / 1000)
        total_ms = 1000 * (time.monotonic() - start)
        before, after = runs.around(start + 1e6)
        assert after == 0.0
        return (total_ms - before) / RUNS

    idle_ms, working_ms = (min(outside_ms(between_ms) for _ in range(5)) for between_ms in (0.0, 0.05))
    assert working_ms - idle_ms > 0.8 * 0.05, (idle_ms, working_ms)


def test_a_moment_divides_the_runs() -> None:
    runs = Runs()

    class Slow:
        def run(self) -> None:
            time.sleep(0.004)

    runs.watch(Slow, "run")
    for _ in range(2):
        Slow().run()
    moment = time.monotonic()
    Slow().run()
    before, after = runs.around(moment)
    assert before >= 8 > after >= 4, (before, after)
