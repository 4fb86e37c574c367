"""NVIDIA's management library, where a driver brings it: name, clocks, power, energy and memory of the first GPU.

Called through ctypes, so that nothing needs to be installed. What a GPU does not tell (Jetson's integrated ones tell
little) is None. Not here: Jetson's rails and clocks (``power_rails``, ``machine_state``).
"""

from __future__ import annotations

import ctypes
from typing import Any

_LIBRARIES = ("libnvidia-ml.so.1", "nvml.dll")
_TEXT_BYTES = 96
_CLOCKS = {"gpu": 1, "memory": 2}  # streaming multiprocessors, memory
_GPU_SENSOR = 0
_UNKNOWN_BYTES = 2**64 - 1
_MOST_PROCESSES = 256
# Bits of nvmlDeviceGetCurrentClocksThrottleReasons that mean less speed than asked for.
_THROTTLING = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


class _MemoryInfo(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used_bytes", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class Gpu:
    """The first GPU behind ``library``, which is libnvidia-ml or answers as it does."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._device = ctypes.c_void_p()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self._device)):
            raise OSError("NVML finds no GPU")

    @classmethod
    def find(cls) -> Gpu | None:
        for name in _LIBRARIES:
            try:
                return cls(ctypes.CDLL(name))
            except OSError:
                continue
        return None

    @property
    def name(self) -> str | None:
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        failed = self._library.nvmlDeviceGetName(self._device, text, _TEXT_BYTES)
        return None if failed else text.value.decode(errors="replace")

    @property
    def driver(self) -> str | None:
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        failed = self._library.nvmlSystemGetDriverVersion(text, _TEXT_BYTES)
        return None if failed else text.value.decode(errors="replace")

    @property
    def clocks_mhz(self) -> dict[str, float]:
        found = {name: self._number("nvmlDeviceGetClockInfo", ctypes.c_uint, kind) for name, kind in _CLOCKS.items()}
        return {name: float(value) for name, value in found.items() if value is not None}

    @property
    def temperature_celsius(self) -> float | None:
        return _float(self._number("nvmlDeviceGetTemperature", ctypes.c_uint, _GPU_SENSOR), 1)

    @property
    def watts(self) -> float | None:
        return _float(self._number("nvmlDeviceGetPowerUsage", ctypes.c_uint), 1000)

    @property
    def joules(self) -> float | None:
        """Since the driver was loaded."""
        return _float(self._number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong), 1000)

    @property
    def throttling(self) -> tuple[str, ...] | None:
        bits = self._number("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong)
        return None if bits is None else tuple(reason for bit, reason in _THROTTLING.items() if bits & bit)

    @property
    def used_bytes(self) -> int | None:
        """By all processes together."""
        info = _MemoryInfo()
        failed = self._library.nvmlDeviceGetMemoryInfo(self._device, ctypes.byref(info))
        return None if failed else int(info.used)

    def process_bytes(self, pid: int) -> int | None:
        count = ctypes.c_uint(_MOST_PROCESSES)
        processes = (_Process * _MOST_PROCESSES)()
        call = getattr(self._library, "nvmlDeviceGetComputeRunningProcesses_v3", None)
        if call is None or call(self._device, ctypes.byref(count), processes):
            return None
        used = (int(one.used_bytes) for one in processes[: count.value] if one.pid == pid)
        return next((value for value in used if value != _UNKNOWN_BYTES), None)

    def _number(self, function: str, kind: Any, *arguments: int) -> int | None:
        value = kind()
        call = getattr(self._library, function, None)
        if call is None or call(self._device, *arguments, ctypes.byref(value)):
            return None
        return int(value.value)


def _float(value: int | None, per_unit: int) -> float | None:
    return None if value is None else value / per_unit
