"""Wall-clock time of one request by stage, without gaps: what one stage does not take, the next one does."""

from __future__ import annotations

import time


class StageClock:
    """Starts when it is made, and stands from ``pause`` to ``resume``. ``lap`` gives a stage the time from the last lap
    to now, or to ``at_ms``.
    """

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last_ms = 0.0
        self._paused_at_ms: float | None = None
        self._start_s = time.perf_counter()  # as if there had been no pauses

    def elapsed_ms(self, moment_s: float | None = None) -> float:
        """Up to now, or to what ``time.perf_counter`` gave since the last pause."""
        return 1000.0 * ((time.perf_counter() if moment_s is None else moment_s) - self._start_s)

    def lap(self, stage: str, at_ms: float | None = None) -> None:
        now_ms = self.elapsed_ms() if at_ms is None else at_ms
        self.laps_ms[stage] = self.laps_ms.get(stage, 0.0) + now_ms - self._last_ms
        self._last_ms = now_ms

    def pause(self) -> None:
        self._paused_at_ms = self.elapsed_ms()

    def resume(self) -> None:
        if self._paused_at_ms is not None:
            self._start_s += (self.elapsed_ms() - self._paused_at_ms) / 1000.0
            self._paused_at_ms = None
