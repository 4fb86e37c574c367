"""Wall-clock time by stage, without gaps: what one stage does not take, the next one does."""

from __future__ import annotations

import time


class StageClock:
    """Starts when it is made. ``lap`` gives the time since the last lap to a stage; ``resume`` drops that time."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps_ms[stage] = self.laps_ms.get(stage, 0.0) + 1000.0 * (now - self._last)
        self._last = now

    @property
    def elapsed_ms(self) -> float:
        """Up to the last lap."""
        return sum(self.laps_ms.values())

    def resume(self) -> None:
        self._last = time.perf_counter()
