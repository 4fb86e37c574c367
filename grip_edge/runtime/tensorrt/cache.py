"""The key-value cache on the device: of the engine's fixed capacity, allocated once, written in place.

Where the target copies the cache instead (no TensorScatter), there are two sets of buffers, which change places after
every run.
"""

from __future__ import annotations

from grip_edge.manifest import TextSpec
from grip_edge.runtime.onnx_backend import decoder_names
from grip_edge.runtime.tensorrt.device_array import DeviceArray
from grip_edge.runtime.tensorrt.driver import Driver
from grip_edge.runtime.tensorrt.engine import Context, Engine


class DeviceCache:
    """``filled`` of ``capacity`` slots hold tokens."""

    def __init__(self, driver: Driver, engine: Engine, spec: TextSpec, capacity: int, in_place: bool) -> None:
        self.capacity, self.filled, self.in_place = capacity, 0, in_place
        self._names = decoder_names(spec.layers)[0][3:]
        shape = (1, spec.kv_heads, capacity, spec.head_dim)

        def buffers() -> dict[str, DeviceArray]:
            return {name: DeviceArray(driver, shape, engine.dtype(name)) for name in self._names}

        self._current = buffers()
        self._next = self._current if in_place else buffers()
        self.reset()

    def reset(self) -> None:
        """Slots without a token are masked, but NaN would survive the mask; so memory of unknown content is zeroed."""
        self.filled = 0
        for array in (*self._current.values(), *(() if self.in_place else self._next.values())):
            array.zero()

    def bind(self, context: Context) -> None:
        context.bind(self._current, {f"new_{name}": array for name, array in self._next.items()})

    def advance(self, count: int) -> None:
        self.filled += count
        self._current, self._next = self._next, self._current

    @property
    def bytes(self) -> int:
        sets = (self._current,) if self.in_place else (self._current, self._next)
        return sum(array.capacity_bytes for buffers in sets for array in buffers.values())
