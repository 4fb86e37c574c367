"""The machine of a measurement, as a report (``report``) keeps it: what it is, and what state it was in.

Units are in the names; what is not known is null. Not here: finding it out (``runtime.machine``).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Where it ran. ``threads`` null: the default of the backend. ``board``: as its device tree calls it."""

    cpu_model: str | None
    cpu_count: int | None
    operating_system: str
    backend: str
    threads: int | None
    versions: dict[str, str]
    board: str | None = None
    gpu_model: str | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class MachineState:
    """What changes from minute to minute. ``power_mode`` is nvpmodel's; ``load_average`` is that of the last minute.

    ``clocks_mhz`` by unit (cpu0, gpu, memory), ``temperatures_celsius`` by sensor; empty where none can be read.
    ``throttling``: why a GPU runs below its clock; null where no GPU tells.
    """

    power_mode: str | None
    cpu_governor: str | None
    clocks_mhz: dict[str, float]
    temperatures_celsius: dict[str, float]
    throttling: tuple[str, ...] | None
    available_bytes: int | None
    swap_used_bytes: int | None
    load_average: float | None
