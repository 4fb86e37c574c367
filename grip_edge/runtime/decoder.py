"""The decoder over a cache: the prompt in one run, then one token at a time, through the same graph.

Everything is bound once and stays where it is, as long as runs are of one length: a step costs its copies into the
bound arrays and nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from grip_edge.manifest import TextSpec
from grip_edge.runtime.cache import KVCache

_CPU = "cpu"


class CachedDecoder:
    """Not shareable: one request at a time. ``capacity`` is the number of tokens that it can see of one request."""

    def __init__(self, session: ort.InferenceSession, spec: TextSpec, capacity: int, device: str = _CPU) -> None:
        types = {node.name: node.type for node in session.get_inputs()}
        self.cache = KVCache(spec, capacity, types["cache_key_0"], device)
        self._session = session
        self._device = device
        self._inputs: dict[str, NDArray[Any]] = {}
        self._logits = np.empty(spec.vocab_size, np.float32)
        self.binding = session.io_binding()
        self.binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(self._logits[None]))
        self.cache.bind_inputs(self.binding)
        self.cache.bind_outputs(self.binding)  # the same buffers: they are written in place

    def restart(self) -> None:
        """Forgets the tokens seen."""
        self.cache.filled = 0

    def append(self, embeds: NDArray[Any], position_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """embeds [1,S,D] and position_ids [1,S] of S new tokens -> logits [V] after the last of them.

        The array of the logits is the same each time: it holds until the next call.
        """
        count = embeds.shape[1]
        if self.cache.filled + count > self.cache.capacity:
            raise ValueError(f"{self.cache.filled} + {count} tokens exceed the cache of {self.cache.capacity}.")
        start = np.array([self.cache.filled], np.int64)
        self._feed({"embeds": embeds, "position_ids": position_ids, "write_start": start})
        self._session.run_with_iobinding(self.binding)
        self.cache.filled += count
        return self._logits

    def _feed(self, feeds: dict[str, NDArray[Any]]) -> None:
        """Into the arrays that are bound; new ones where a length changed. Devices take their copies while binding."""
        for name, feed in feeds.items():
            bound = self._inputs.get(name)
            if bound is not None and bound.shape == feed.shape and self._device == _CPU:
                bound[...] = feed
            else:
                self._inputs[name] = feed.copy()
                self.binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(self._inputs[name]))
