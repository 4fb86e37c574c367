"""The decoder over one request's cache: the prompt in one run, then one token at a time, through the same graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from grip_edge.manifest import TextSpec
from grip_edge.runtime.cache import KVCache


class CachedDecoder:
    """Not shareable: one per request. ``capacity`` is the number of tokens that it will ever see."""

    def __init__(self, session: ort.InferenceSession, spec: TextSpec, capacity: int, device: str = "cpu") -> None:
        cache_type = next(node.type for node in session.get_inputs() if node.name == "cache_key_0")
        self.cache = KVCache(spec, capacity, cache_type, device)
        self._session = session
        self.binding = session.io_binding()
        self.binding.bind_output("logits")
        self.cache.bind_inputs(self.binding)
        self.cache.bind_outputs(self.binding)  # the same buffers: TensorScatter writes in place

    def append(self, embeds: NDArray[Any], position_ids: NDArray[np.int64]) -> NDArray[np.floating]:
        """embeds [1,S,D] and position_ids [1,S] of S new tokens -> logits [V] after the last of them."""
        count = embeds.shape[1]
        if self.cache.filled + count > self.cache.capacity:
            raise ValueError(f"{self.cache.filled} + {count} tokens exceed the cache of {self.cache.capacity}.")
        self.binding.bind_cpu_input("embeds", np.ascontiguousarray(embeds))
        self.binding.bind_cpu_input("position_ids", np.ascontiguousarray(position_ids))
        self.binding.bind_cpu_input("write_start", np.array([self.cache.filled], np.int64))
        self._session.run_with_iobinding(self.binding)
        self.cache.filled += count
        return np.asarray(self.binding.get_outputs_as_ortvaluevector()[0].numpy()[0])
