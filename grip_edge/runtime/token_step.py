"""One more token on a CPU: its embedding looked up and the decoder's run over it, everything bound once.

After each run of a large decoder nothing of Python is left in the processor's caches, and a line of it then costs
microseconds: so a step is two numbers written and one run, as long as tokens are those that the decoder itself finds
likeliest and has embedded already; others are looked up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from grip_edge.runtime.decoder import CachedDecoder


def bound_look_up(embed: ort.InferenceSession, token: NDArray[np.int64], embeds: NDArray[Any]) -> Callable[[], None]:
    """Reads ``token`` [1,1] and writes ``embeds`` [1,1,D] at each call. A binding does not keep its arrays."""
    binding = embed.io_binding()
    binding.bind_ortvalue_input("token_ids", ort.OrtValue.ortvalue_from_numpy(token))
    binding.bind_ortvalue_output("embeds", ort.OrtValue.ortvalue_from_numpy(embeds))
    return partial(embed.run_with_iobinding, binding)


class TokenStep:
    """Continues what ``decoder`` has seen, and leaves its results there."""

    def __init__(self, embed: ort.InferenceSession, decoder: CachedDecoder) -> None:
        token, position, start = np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int64), np.zeros(1, np.int64)
        self._arrays = token, position, start  # bindings do not keep them
        self._token, self._position, self._start = token[0].data, position[0].data, start.data
        self._look_up = bound_look_up(embed, token, decoder.next_embeds)
        self._decode, self._binding = decoder.session.run_with_iobinding, decoder.new_binding()
        self._embedded = decoder.likeliest_view if decoder.embeds_choice else np.full(1, -1).data
        self._cache = decoder.cache
        for name, array in (("embeds", decoder.next_embeds), ("position_ids", position), ("write_start", start)):
            self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))

    def run(self, token: int, position: int) -> None:
        if token != self._embedded[0]:
            self._token[0] = token
            self._look_up()
        self._position[0], self._start[0] = position, self._cache.take(1)
        self._decode(self._binding)
