"""How much of the machine is taken by others than this process: its other processes, and other machines on its host.

From the kernel's counters (Linux), which tick a hundred times a second: good for half a second and more.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE = (3, 4)  # idle, and waiting for a disk
_COUNTED = 8  # up to the time stolen by the host; what follows is counted in the first ones already


class Watch:
    """Begins when it is made."""

    def __init__(self) -> None:
        self._busy_s, self._own_s, self._start = _busy_s(), _own_s(), time.monotonic()

    def others_share(self) -> float:
        """Of all cores' time since the beginning; 0 is a machine for itself."""
        cores_s = (time.monotonic() - self._start) * (os.cpu_count() or 1)
        others_s = (_busy_s() - self._busy_s) - (_own_s() - self._own_s)
        return min(1.0, max(0.0, others_s / cores_s))


def _busy_s() -> float:
    """Of all cores together."""
    counts = [int(count) for count in _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1 : 1 + _COUNTED]]
    busy = sum(count for index, count in enumerate(counts) if index not in _IDLE)
    return busy / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    own = os.times()
    return own.user + own.system
