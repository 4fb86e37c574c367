"""One more token on a CPU: its embedding looked up and the decoder's run over it, everything bound once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from grip_edge.runtime.decoder import CachedDecoder
from grip_edge.runtime.token_loop import GreedyStep


def bound_look_up(embed: ort.InferenceSession, token: NDArray[np.int64], embeds: NDArray[Any]) -> Callable[[], None]:
    """Reads ``token`` [1,1] and writes ``embeds`` [1,1,D] at each call. A binding does not keep what it writes to."""
    binding = embed.io_binding()
    binding.bind_cpu_input("token_ids", token)
    binding.bind_ortvalue_output("embeds", ort.OrtValue.ortvalue_from_numpy(embeds))
    return partial(embed.run_with_iobinding, binding)


class TokenStep:
    """Continues what ``decoder`` has seen, and leaves its results there."""

    def __init__(self, embed: ort.InferenceSession, decoder: CachedDecoder) -> None:
        token, position, start = np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int64), np.zeros(1, np.int64)
        self._token, self._position, self._start = token[0].data, position[0].data, start.data
        self._look_up = bound_look_up(embed, token, decoder.next_embeds)
        self._cache = decoder.cache
        binding = decoder.new_binding()
        for name, array in (("embeds", decoder.next_embeds), ("position_ids", position), ("write_start", start)):
            binding.bind_cpu_input(name, array)
        views = self._position, self._start, decoder.likeliest_view, decoder.logits_view
        self._greedy = GreedyStep(decoder.session.run_with_iobinding, binding, *views)

    def run(self, token: int, position: int) -> None:
        self._token[0] = token
        self._look_up()
        self._position[0], self._start[0] = position, self._cache.take(1)
        self._greedy.run(self._greedy.argument)

    def begin_steps(self, count: int) -> tuple[GreedyStep, int]:
        """``token_loop.BeginSteps`` of a decoder that ``embeds_choice``."""
        return self._greedy, self._cache.take(count)
