"""An array in device memory: allocated once, freed with the last reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from grip_edge.runtime.tensorrt.driver import Driver


class DeviceArray:
    """``shape`` may shrink and grow within what was allocated (``resized``)."""

    def __init__(self, driver: Driver, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._driver = driver
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.capacity_bytes = self.size_bytes
        self.address = driver.allocate(self.capacity_bytes)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._driver.free(self.address)

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def resized(self, shape: tuple[int, ...]) -> DeviceArray:
        """The same memory, read as an array of ``shape``."""
        self.shape = shape
        if self.size_bytes > self.capacity_bytes:
            raise ValueError(f"{shape} needs {self.size_bytes} bytes, {self.capacity_bytes} were allocated")
        return self

    def fill(self, array: NDArray[Any]) -> DeviceArray:
        """Copies from the host; the shape follows."""
        self._driver.to_device(self.resized(array.shape).address, np.ascontiguousarray(array, self.dtype))
        return self

    def zero(self) -> DeviceArray:
        self._driver.zero(self.address, self.size_bytes)
        return self

    def read(self) -> NDArray[Any]:
        """A copy on the host, after everything queued before."""
        array = np.empty(self.shape, self.dtype)
        self._driver.to_host(array, self.address)
        return array
