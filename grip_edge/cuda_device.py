"""The CUDA device of this machine, if there is one. Needs the package ``cuda-bindings`` of the device extras."""

from __future__ import annotations

import importlib
from typing import Any


def compute_capability(ordinal: int = 0) -> int | None:
    """As in 86 for 8.6; None without a device, a driver or the package."""
    try:
        driver: Any = importlib.import_module("cuda.bindings.driver")
        _call(driver.cuInit(0))
        device = _call(driver.cuDeviceGet(ordinal))
        names = driver.CUdevice_attribute
        major = _call(driver.cuDeviceGetAttribute(names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device))
        minor = _call(driver.cuDeviceGetAttribute(names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device))
    except (ImportError, RuntimeError):  # no package; no driver, or an error of it
        return None
    return 10 * int(major) + int(minor)


def _call(result: tuple[Any, ...]) -> Any:
    """cuda-bindings give (status, value)."""
    status, *values = result
    if int(status) != 0:
        raise RuntimeError(f"CUDA driver: {status}")
    return values[0] if values else None
