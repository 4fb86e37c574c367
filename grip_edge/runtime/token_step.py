"""One more token on a CPU: its embedding looked up and the decoder's run over it, everything bound once.

After each run of a large decoder nothing of Python is left in the processor's caches, and a line of it then costs
microseconds, a call of a function several. So greedy decoding, where the decoder itself finds the likeliest token and
embeds it, is one run and a few lines in one place (``greedy_tokens``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from grip_edge.runtime.decoder import CachedDecoder
from grip_edge.runtime.sampling import not_a_number


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
        self._decoder = decoder
        for name, array in (("embeds", decoder.next_embeds), ("position_ids", position), ("write_start", start)):
            self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))

    def run(self, token: int, position: int) -> None:
        self._token[0] = token
        self._look_up()
        self._position[0], self._start[0] = position, self._decoder.cache.take(1)
        self._decode(self._binding)

    def greedy_tokens(self, last_position: int, count: int) -> Iterator[int]:
        """As ``token_loop.answer_tokens``, of a decoder that ``embeds_choice``."""
        yield self._decoder.likeliest_token()
        likeliest, logits = self._decoder.likeliest_view, self._decoder.logits_view
        positions, starts, decode, binding = self._position, self._start, self._decode, self._binding
        to_slot = self._decoder.cache.take(count - 1) - last_position - 1
        for position in range(last_position + 1, last_position + count):
            positions[0], starts[0] = position, position + to_slot
            decode(binding)
            token = likeliest[0]
            logit = logits[token]
            if logit != logit:  # NaN, in fewer instructions than a call
                raise not_a_number()
            yield token
