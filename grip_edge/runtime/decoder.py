"""The decoder over a cache: the prompt in one run or several, then one token at a time, through the same graph.

Caches and results are bound once and stay where they are. A caller finds ``logits`` [V] after a run, and asks for the
``likeliest_token``, which the graph itself gives; of graphs that do not (older bundles) it is looked up here.
Not here: single tokens without a copy (``token_step``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from grip_edge.engines import GREEDY_TOKEN
from grip_edge.manifest import TextSpec
from grip_edge.runtime.cache import KVCache
from grip_edge.runtime.sampling import not_a_number

CPU = "cpu"


class CachedDecoder:
    """Not shareable: one request at a time. ``capacity`` is the number of tokens that it can see of one request."""

    def __init__(self, session: ort.InferenceSession, spec: TextSpec, capacity: int, device: str = CPU) -> None:
        types = {node.name: node.type for node in session.get_inputs()}
        self.cache = KVCache(spec, capacity, types["cache_key_0"], device)
        self.session = session
        self.device = device
        self.logits = np.empty(spec.vocab_size, np.float32)
        self._likeliest = np.empty((1, 1), np.int64)
        self._chooses = GREEDY_TOKEN in (node.name for node in session.get_outputs())
        # Plain views: numpy's indexing takes 25 us where nothing of it is in the processor's caches.
        self._logits_view, self._likeliest_view = self.logits.data, self._likeliest[0].data
        self.binding = self.new_binding()

    def new_binding(self) -> ort.IOBinding:
        """Of everything but the inputs beside the caches."""
        binding = self.session.io_binding()
        binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(self.logits[None]))
        self.cache.bind_inputs(binding)
        self.cache.bind_outputs(binding)  # the same buffers: they are written in place
        if self._chooses:
            binding.bind_ortvalue_output(GREEDY_TOKEN, ort.OrtValue.ortvalue_from_numpy(self._likeliest))
        return binding

    def restart(self) -> None:
        """Forgets the tokens seen."""
        self.cache.filled = 0

    def append(self, embeds: NDArray[Any], position_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """embeds [1,S,D] and position_ids [1,S] of S new tokens -> logits [V] after the last of them.

        The array of the logits is the same each time: it holds until the next call.
        """
        start = np.array([self.cache.take(embeds.shape[1])], np.int64)
        feeds = [np.ascontiguousarray(feed) for feed in (embeds, position_ids, start)]  # which live until the run ends
        for name, feed in zip(("embeds", "position_ids", "write_start"), feeds, strict=True):
            self.binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(feed))
        self.session.run_with_iobinding(self.binding)
        return self.logits

    def likeliest_token(self) -> int:
        """After the last run; BundleError if its logit is not a number."""
        token: int = self._likeliest_view[0] if self._chooses else int(np.argmax(self.logits))
        logit = self._logits_view[token]
        if logit != logit:  # NaN, in fewer instructions than a call
            raise not_a_number()
        return token
