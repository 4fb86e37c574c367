"""Energy between two moments, from whatever this machine tells: counters are read, powers are summed over time.

The order of preference is the order in which the sources cover the machine: the board's rails, tegrastats, the GPU,
the processor package. Where there is none, ``find_meter`` gives None and the report says null.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from grip_edge.runtime.nvml import Gpu
from grip_edge.runtime.power_rails import ina3221_watts, rapl_joules, tegrastats_watts

_INTERVAL_S = 0.05
_TEGRASTATS = "tegrastats"
# The rails that stand for the whole board, best first.
_BOARD_RAILS = ("VDD_IN", "VIN_SYS_5V0", "VIN", "POM_5V_IN", "SYS_VIN_HV")


@dataclass
class EnergyMeter:
    """``with meter: ...`` fills ``joules`` (by rail) and ``seconds``. ``begin`` and ``end`` get the moments between
    which energy counts, in seconds of the performance counter; ``end`` gives joules.
    """

    source: str
    begin: Callable[[float], None]
    end: Callable[[float], dict[str, float]]
    joules: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    _start: float = 0.0

    def __enter__(self) -> EnergyMeter:
        self._start = time.perf_counter()
        self.begin(self._start)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        now = time.perf_counter()
        self.seconds = now - self._start
        self.joules = self.end(now)

    @property
    def main_rail(self) -> str | None:
        """That of the whole board, else the one that used most."""
        for rail in _BOARD_RAILS:
            if rail in self.joules:
                return rail
        return max(self.joules, key=lambda rail: self.joules[rail], default=None)


class PowerIntegral:
    """Powers read again and again by a thread, summed to joules by the trapezoidal rule."""

    def __init__(self, watts: Callable[[], dict[str, float]], interval_s: float = _INTERVAL_S) -> None:
        self._watts = watts
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._readings: list[tuple[float, dict[str, float]]] = []
        self._thread: threading.Thread | None = None

    def begin(self, now: float) -> None:
        self._readings = [(now, self._watts())]
        self._ended.clear()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def end(self, now: float) -> dict[str, float]:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        within = [reading for reading in self._readings if reading[0] < now]
        return integral([*within, (now, self._watts())])

    def _read(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._readings.append((time.perf_counter(), self._watts()))


def integral(readings: list[tuple[float, dict[str, float]]]) -> dict[str, float]:
    """Joules by rail of (seconds, watts by rail)."""
    joules: dict[str, float] = {}
    for (start, before), (end, after) in itertools.pairwise(readings):
        for rail in before.keys() & after.keys():
            joules[rail] = joules.get(rail, 0.0) + (end - start) * (before[rail] + after[rail]) / 2
    return joules


def find_meter(root: Path = Path("/"), gpu: Gpu | None = None) -> EnergyMeter | None:
    """The best meter of this machine; ``gpu`` is its GPU, if NVML knows one."""
    if ina3221_watts(root):
        rails = PowerIntegral(lambda: ina3221_watts(root))
        return EnergyMeter("INA3221 in sysfs", rails.begin, rails.end)
    if shutil.which(_TEGRASTATS):
        stats = _Tegrastats()
        return EnergyMeter(_TEGRASTATS, stats.begin, stats.end)
    if gpu is not None and gpu.joules is not None:
        return _counters("NVML energy counter", lambda: {"gpu": (gpu.joules or 0.0, float("inf"))})
    if gpu is not None and gpu.watts is not None:
        power = PowerIntegral(lambda: {"gpu": gpu.watts or 0.0})
        return EnergyMeter("NVML power", power.begin, power.end)
    if rapl_joules(root):
        return _counters("RAPL", lambda: rapl_joules(root))
    return None


def _counters(source: str, read: Callable[[], dict[str, tuple[float, float]]]) -> EnergyMeter:
    """Counters and where they wrap."""
    start: dict[str, tuple[float, float]] = {}

    def begin(_: float) -> None:
        start.update(read())

    def end(_: float) -> dict[str, float]:
        return {
            rail: used - start[rail][0] + (wrap if used < start[rail][0] else 0.0)
            for rail, (used, wrap) in read().items()
            if rail in start
        }

    return EnergyMeter(source, begin, end)


class _Tegrastats:
    """The program runs while energy is measured; its lines are read as they come.

    Up to the first line, and after the last one, power is taken to be what that line says.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._readings: list[tuple[float, dict[str, float]]] = []
        self._thread: threading.Thread | None = None
        self._start = 0.0

    def begin(self, now: float) -> None:
        self._readings = []
        self._start = now
        command = [_TEGRASTATS, "--interval", str(round(1000 * _INTERVAL_S))]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._thread = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._thread.start()

    def end(self, now: float) -> dict[str, float]:
        if self._process is None or self._thread is None:
            return {}
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        if not self._readings:
            return {}
        first, last = self._readings[0][1], self._readings[-1][1]
        within = [reading for reading in self._readings if reading[0] < now]
        return integral([(self._start, first), *within, (now, last)])

    def _read(self, process: subprocess.Popen[str]) -> None:
        if process.stdout is not None:
            with process.stdout as lines:
                for line in lines:
                    self._readings.append((time.perf_counter(), tegrastats_watts(line)))
