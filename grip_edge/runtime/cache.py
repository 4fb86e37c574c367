"""The key-value cache of one request: one buffer per layer and kind, written in place by the decoder.

A cache is updated without a copy only where input and output are bound to one and the same buffer, so each buffer here
is bound as both. All of them are cut from one block, which the system can give in large pages. A cache may serve one
request after another: what an earlier one left is finite, and behind the slots that are filled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from grip_edge.manifest import TextSpec
from grip_edge.runtime.onnx_backend import decoder_names
from grip_edge.runtime.session import FLOAT_TYPES


class KVCache:
    """``filled`` of ``capacity`` slots hold tokens; the others begin as zero, since NaN would survive a mask."""

    def __init__(self, spec: TextSpec, capacity: int, element_type: str = "tensor(float)", device: str = "cpu") -> None:
        self.capacity = capacity
        self.filled = 0
        names = decoder_names(spec.layers)[0][3:]
        block = np.zeros((len(names), 1, spec.kv_heads, capacity, spec.head_dim), FLOAT_TYPES[element_type])
        arrays = dict(zip(names, block, strict=True))
        self._buffers = {name: ort.OrtValue.ortvalue_from_numpy(array, device) for name, array in arrays.items()}
        self._arrays = arrays if device == "cpu" else {}  # which the buffers are made of, not copies
        self.bytes = block.nbytes
        self.is_half = block.dtype == np.float16

    def take(self, count: int) -> int:
        """The first of the next ``count`` slots, which the caller is about to fill."""
        start = self.filled
        if start + count > self.capacity:
            raise ValueError(f"{start} + {count} tokens exceed the cache of {self.capacity}.")
        self.filled = start + count
        return start

    def bind_inputs(self, binding: ort.IOBinding) -> None:
        for name, buffer in self._buffers.items():
            binding.bind_ortvalue_input(name, buffer)

    def bind_outputs(self, binding: ort.IOBinding) -> None:
        for name, buffer in self._buffers.items():
            binding.bind_ortvalue_output(f"new_{name}", buffer)

    def addresses(self) -> dict[str, int]:
        return {name: buffer.data_ptr() for name, buffer in self._buffers.items()}

    def array(self, name: str) -> NDArray[Any]:
        """The buffer of input ``name``, [1,G,C,d], as the decoder left it."""
        return self._arrays[name] if self._arrays else np.asarray(self._buffers[name].numpy())
