"""The part of CUDA's runtime that is used here: memory, copies, one stream, graphs of launches.

Behind a small interface, so that everything above it can be tested without a device. Addresses and handles are ints.
Memory that is given back is kept for the next array of its size: CUDA's own release waits for the device. That is safe
because all work is queued on one stream, in order.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from grip_edge.errors import GripEdgeError, MissingExtraError


class CudaError(GripEdgeError):
    """A call of CUDA failed."""


# cuda-bindings are made for one CUDA release, and JetPack 6 is of CUDA 12.
_OLD_DRIVER = "cudaErrorInsufficientDriver"
_OLD_DRIVER_HINT = (
    "there is no driver, or it is older than the CUDA of cuda-bindings; for a driver of CUDA 12 run  "
    "pip install 'cuda-bindings<13' ."
)


class Driver(Protocol):
    """``stream`` is the one stream on which everything is queued, in order."""

    stream: int

    def allocate(self, size_bytes: int) -> int: ...
    def free(self, address: int) -> None: ...
    def zero(self, address: int, size_bytes: int) -> None: ...
    def to_device(self, address: int, array: NDArray[Any]) -> None: ...
    def to_host(self, array: NDArray[Any], address: int) -> None: ...
    def copy(self, to: int, source: int, size_bytes: int) -> None: ...
    def synchronise(self) -> None: ...
    def begin_capture(self) -> None: ...
    def end_capture(self) -> int: ...
    def launch(self, graph: int) -> None: ...


class CudaDriver:
    """``Driver`` on the current device."""

    def __init__(self, extra: str) -> None:
        try:
            self._cuda: Any = importlib.import_module("cuda.bindings.runtime")
        except ModuleNotFoundError:
            raise MissingExtraError("cuda-bindings", extra) from None
        self.stream = int(self._call("cudaStreamCreate"))
        self._sizes: dict[int, int] = {}
        self._free: dict[int, list[int]] = {}

    def allocate(self, size_bytes: int) -> int:
        known = self._free.get(size_bytes)
        address = known.pop() if known else int(self._call("cudaMalloc", max(1, size_bytes)))
        self._sizes[address] = size_bytes
        return address

    def free(self, address: int) -> None:
        self._free.setdefault(self._sizes.pop(address), []).append(address)

    def zero(self, address: int, size_bytes: int) -> None:
        self._call("cudaMemsetAsync", address, 0, size_bytes, self.stream)

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        """Host memory is pageable, so it may change as soon as this returns."""
        self._copy(address, np.ascontiguousarray(array).ctypes.data, array.nbytes, "cudaMemcpyHostToDevice")

    def to_host(self, array: NDArray[Any], address: int) -> None:
        """Waits for what was queued before."""
        self._copy(array.ctypes.data, address, array.nbytes, "cudaMemcpyDeviceToHost")
        self.synchronise()

    def copy(self, to: int, source: int, size_bytes: int) -> None:
        self._copy(to, source, size_bytes, "cudaMemcpyDeviceToDevice")

    def synchronise(self) -> None:
        self._call("cudaStreamSynchronize", self.stream)

    def begin_capture(self) -> None:
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)

    def end_capture(self) -> int:
        graph = self._call("cudaStreamEndCapture", self.stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: int) -> None:
        self._call("cudaGraphLaunch", graph, self.stream)

    def _copy(self, to: int, source: int, size_bytes: int, kind: str) -> None:
        self._call("cudaMemcpyAsync", to, source, size_bytes, getattr(self._cuda.cudaMemcpyKind, kind), self.stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self._cuda, name)(*arguments)
        if int(status) != 0:
            reason = getattr(status, "name", status)
            hint = _OLD_DRIVER_HINT if reason == _OLD_DRIVER else "check the device with  nvidia-smi ."
            raise CudaError(f"{name} failed: {reason}; {hint}")
        return values[0] if values else None
