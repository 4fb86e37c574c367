"""What can be read of the machine itself."""

from __future__ import annotations

import shutil
from pathlib import Path

from grip_edge.cli.checks.finding import BROKEN, OK, UNKNOWN, Finding

_MIB = 2**20


def check_memory() -> Finding:
    from grip_edge.runtime.machine import machine, meminfo_bytes

    here, free = machine(None), meminfo_bytes("MemAvailable")
    disk = shutil.disk_usage(Path.cwd()).free
    memory = "unknown" if free is None else f"{free / _MIB:.0f} MiB"
    board = f"{here.board}; " if here.board else ""
    fact = f"{board}{here.cpu_model or 'unknown CPU'}, {here.cpu_count} cores; {memory} of memory free"
    return Finding("machine", OK, f"{fact}, {disk / _MIB:.0f} MiB of disk in this folder")


def check_state() -> Finding:
    from grip_edge.runtime.machine_state import machine_state

    state = machine_state()
    known = [f"power mode {state.power_mode}"] if state.power_mode else []
    known += [f"governor {state.cpu_governor}"] if state.cpu_governor else []
    known += [f"{name} at {mhz:.0f} MHz" for name, mhz in state.clocks_mhz.items()]
    if not known:
        return Finding("clocks", UNKNOWN, "this system tells neither power mode nor clocks; reports say null")
    return Finding("clocks", OK, ", ".join(known))


def check_energy() -> Finding:
    """Reads the meter for a moment."""
    from grip_edge.runtime.energy import find_meter
    from grip_edge.runtime.nvml import Gpu

    meter = find_meter(gpu=Gpu.find())
    if meter is None:
        remedy = "Reports say null. On Jetson the sensors may need root; on Intel and AMD:  sudo chmod a+r "
        return Finding("energy", UNKNOWN, "no meter can be read", f"{remedy}/sys/class/powercap/*/energy_uj")
    with meter:
        sum(range(2_000_000))
    rail = meter.main_rail
    if rail is None:
        return Finding("energy", BROKEN, f"{meter.source} gave no reading")
    return Finding("energy", OK, f"{meter.source}: {rail} {meter.joules[rail] / meter.seconds:.2f} W")
