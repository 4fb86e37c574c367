"""Power mode, clocks, temperatures and free memory at one moment, from sysfs, NVML and nvpmodel; unknown is None.

``root`` is the root of the file system, so that a recorded board can be read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from grip_edge.machine_record import MachineState
from grip_edge.runtime.machine import meminfo_bytes
from grip_edge.runtime.nvml import Gpu

_NVPMODEL = "nvpmodel"
_POWER_MODE = re.compile(r"NV Power Mode:\s*(\S+)")
_PATIENCE_S = 5
_EXTERNAL_MEMORY_CLOCK = "sys/kernel/debug/bpmp/debug/clk/emc/rate"


def machine_state(root: Path = Path("/")) -> MachineState:
    gpu = Gpu.find()
    clocks, temperatures = _cpu_clocks(root) | _board_clocks(root), _temperatures(root)
    if gpu is not None:
        clocks |= gpu.clocks_mhz
        if gpu.temperature_celsius is not None:
            temperatures["gpu"] = gpu.temperature_celsius
    total, free = meminfo_bytes("SwapTotal", root), meminfo_bytes("SwapFree", root)
    return MachineState(
        power_mode=power_mode(_nvpmodel_text()),
        cpu_governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        clocks_mhz=clocks,
        temperatures_celsius=temperatures,
        throttling=None if gpu is None else gpu.throttling,
        available_bytes=meminfo_bytes("MemAvailable", root),
        swap_used_bytes=None if total is None or free is None else total - free,
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def power_mode(nvpmodel_text: str) -> str | None:
    """From what ``nvpmodel -q`` prints, as "MAXN" or "15W"."""
    found = _POWER_MODE.search(nvpmodel_text)
    return None if found is None else found[1]


def _nvpmodel_text() -> str:
    if shutil.which(_NVPMODEL) is None:
        return ""
    try:
        command = [_NVPMODEL, "-q"]
        return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _cpu_clocks(root: Path) -> dict[str, float]:
    found = {
        path.parent.parent.name: _number(path)
        for path in sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    }
    return {name: value / 1e3 for name, value in found.items() if value is not None}


def _board_clocks(root: Path) -> dict[str, float]:
    """Jetson's GPU (17000000.gpu, 17000000.ga10b, gpu-gpc-0, by release) and memory, in hertz."""
    clocks: dict[str, float] = {}
    for device in sorted(root.glob("sys/class/devfreq/*")):
        hertz = _number(device / "cur_freq")
        if hertz is not None and re.search(r"gpu|ga10b|gv11b|gp10b", device.name):
            clocks.setdefault("gpu", hertz / 1e6)
    hertz = _number(root / _EXTERNAL_MEMORY_CLOCK)
    return clocks if hertz is None else clocks | {"memory": hertz / 1e6}


def _temperatures(root: Path) -> dict[str, float]:
    found = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        kind, millidegrees = _text(zone / "type"), _number(zone / "temp")
        if kind and millidegrees is not None:
            found[kind.removesuffix("-thermal")] = millidegrees / 1e3
    return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:  # some sensors are there and cannot be read
        return None


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if text is not None and text.lstrip("-").isdigit() else None
