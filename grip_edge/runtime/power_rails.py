"""Where a machine tells its power: Jetson's INA3221 sensors in sysfs, NVIDIA's tegrastats, Intel's and AMD's RAPL.

    ina3221      volts and amperes by rail (VDD_IN is the whole board)
    tegrastats   a line of text per interval, for boards whose sensors only root may read
    rapl         joules that the processor package used so far; a counter that wraps

``root`` is the root of the file system, so that recorded trees can be read. Not here: NVML (``nvml``).
"""

from __future__ import annotations

import re
from pathlib import Path

# "VDD_IN 4960mW/4955mW" (JetPack 5 and newer), "POM_5V_IN 2532/2532" (4): now / average, in milliwatts.
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]+) (\d+)(?:mW)?/\d+(?:mW)?(?=\s|$)")
_RAIL_PREFIXES = ("VDD", "VIN", "POM", "SYS")
_CHANNELS = (1, 2, 3)
_MICRO = 1e-6


def ina3221_watts(root: Path = Path("/")) -> dict[str, float]:
    """Watts by rail, now; empty where there is no such sensor or it may not be read."""
    watts: dict[str, float] = {}
    for sensor in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if _text(sensor / "name") != "ina3221":
            continue
        for channel in _CHANNELS:
            rail, volts, amperes = (
                _text(sensor / name) for name in (f"in{channel}_label", f"in{channel}_input", f"curr{channel}_input")
            )
            if rail and volts and amperes:
                watts[rail] = int(volts) * int(amperes) * _MICRO  # millivolts, milliamperes
    return watts


def tegrastats_watts(line: str) -> dict[str, float]:
    """Watts by rail, now, from one line of tegrastats."""
    return {rail: int(now) / 1000 for rail, now in _RAIL.findall(line) if rail.startswith(_RAIL_PREFIXES)}


def rapl_joules(root: Path = Path("/")) -> dict[str, tuple[float, float]]:
    """Joules so far, and where the counter wraps, by package; empty where they may not be read."""
    joules: dict[str, tuple[float, float]] = {}
    for zone in sorted(root.glob("sys/class/powercap/intel-rapl:?")):
        name, used, most = (_text(zone / part) for part in ("name", "energy_uj", "max_energy_range_uj"))
        if name and used and most:
            joules[name] = int(used) * _MICRO, int(most) * _MICRO
    return joules


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return None
