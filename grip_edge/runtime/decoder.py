"""The decoder over a cache: the prompt in one run or several, then one token at a time, through the same graph.

Caches and results are bound once and stay where they are. A caller finds ``logits`` [V] after a run, and asks for the
``likeliest_token``, which the graph itself gives, with its embedding; of graphs that do not (older bundles) it is found
here. Not here: single tokens without a copy (``token_step``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from grip_edge.engines import GREEDY_TOKEN, NEXT_EMBEDS
from grip_edge.manifest import TextSpec
from grip_edge.runtime.cache import KVCache
from grip_edge.runtime.sampling import not_a_number
from grip_edge.runtime.session import FLOAT_TYPES

CPU = "cpu"


class CachedDecoder:
    """Not shareable: one request at a time. ``capacity`` is the number of tokens that it can see of one request."""

    def __init__(self, session: ort.InferenceSession, spec: TextSpec, capacity: int, device: str = CPU) -> None:
        inputs = {node.name: node.type for node in session.get_inputs()}
        outputs = {node.name for node in session.get_outputs()}
        self.cache = KVCache(spec, capacity, inputs["cache_key_0"], device)
        self.session = session
        self.logits = np.empty(spec.vocab_size, np.float32)
        self.next_embeds = np.zeros((1, 1, spec.width), FLOAT_TYPES[inputs["embeds"]])
        likeliest = np.zeros((1, 1), np.int64)
        made = {GREEDY_TOKEN: likeliest, NEXT_EMBEDS: self.next_embeds}
        self._results = {"logits": self.logits[None]} | {name: made[name] for name in made if name in outputs}
        self._chooses, self.embeds_choice = GREEDY_TOKEN in outputs, NEXT_EMBEDS in outputs
        self.logits_view, self.likeliest_view = self.logits.data, likeliest[0].data
        self.bindings = [self.new_binding()]

    def new_binding(self) -> ort.IOBinding:
        """Of everything but the inputs beside the caches."""
        binding = self.session.io_binding()
        self.cache.bind_inputs(binding)
        self.cache.bind_outputs(binding)  # the same buffers: they are written in place
        for name, array in self._results.items():
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
        return binding

    def restart(self) -> None:
        """Forgets the tokens seen."""
        self.cache.filled = 0

    def append(self, embeds: NDArray[Any], position_ids: NDArray[np.int64], parts: int = 1) -> NDArray[np.float32]:
        """embeds [1,S,D] and position_ids [1,S] of S new tokens, in ``parts`` runs -> logits [V] after the last token.

        The array of the logits is the same each time: it holds until the next call.
        """
        size = -(-embeds.shape[1] // parts)
        # All is bound before the first run, behind which each line of Python would cost microseconds.
        bound = [
            self._bound(number, embeds[:, start : start + size], position_ids[:, start : start + size])
            for number, start in enumerate(range(0, embeds.shape[1], size))
        ]
        for binding in bound:
            self.session.run_with_iobinding(binding)
        return self.logits

    def _bound(self, number: int, embeds: NDArray[Any], position_ids: NDArray[np.int64]) -> ort.IOBinding:
        """Which keeps the arrays until it is bound to others."""
        if number == len(self.bindings):
            self.bindings.append(self.new_binding())
        binding = self.bindings[number]
        binding.bind_cpu_input("embeds", embeds)
        binding.bind_cpu_input("position_ids", position_ids)
        binding.bind_cpu_input("write_start", np.array([self.cache.take(embeds.shape[1])], np.int64))
        return binding

    def likeliest_token(self) -> int:
        """After the last run; BundleError if its logit is not a number."""
        token: int = self.likeliest_view[0] if self._chooses else int(np.argmax(self.logits))
        logit = self.logits_view[token]
        if logit != logit:  # NaN, in fewer instructions than a call
            raise not_a_number()
        return token
