"""The CUDA device of this machine, if there is one: asked of its driver, so that no package is needed."""

from __future__ import annotations

import ctypes

_DRIVER = "libcuda.so.1"
# CUdevice_attribute: major and minor number of the compute capability.
_MAJOR, _MINOR = 75, 76


def compute_capability(ordinal: int = 0) -> int | None:
    """As in 86 for 8.6; None without a device or a driver."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), ordinal)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    return None if failed else 10 * major.value + minor.value
