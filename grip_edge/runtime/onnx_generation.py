"""Answers from ONNX Runtime, on any of its execution providers: the four sessions, and the loop over tokens.

On a device the cache stays there, bound as input and output of the decoder; what goes between the stages (features,
embeddings, logits) passes through the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np

from grip_edge.bundle import Bundle
from grip_edge.errors import PromptError
from grip_edge.runtime.decoder import CPU, CachedDecoder
from grip_edge.runtime.onnx_backend import Graphs, Selection
from grip_edge.runtime.positions import prompt_positions
from grip_edge.runtime.prompt import Prompt
from grip_edge.runtime.session import PROVIDER, Attach
from grip_edge.runtime.token_loop import BeginSteps, Decoding, answer_tokens, chosen, greedy_tokens
from grip_edge.runtime.token_step import TokenStep

# Of a prompt. Fewer would read the weights too often; where keys and values are in fp16, memory counts for more than a
# little of the prefill's time (docs/log.md).
_TOKENS_AT_ONCE, _TOKENS_AT_ONCE_HALF = 320, 160

# A cache of more times the capacity that a request needs is given back.
_LONGEST_REUSED = 4


class _Lane(NamedTuple):
    """What one request needs at a time. ``step`` takes a token and its position; ``begin_steps`` is None where
    greedy decoding has no way of its own.
    """

    decoder: CachedDecoder
    step: Callable[[int, int], None]
    begin_steps: BeginSteps | None


class OnnxRuntimeGraphs(Graphs):
    """``backend`` is the name in results; ``device`` where ``provider`` keeps its tensors."""

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None,
        backend: str,
        provider: str = PROVIDER,
        device: str = CPU,
        attach: Attach | None = None,
    ) -> None:
        super().__init__(bundle, threads, provider, attach)
        self.backend = backend
        self._device = device
        (length,) = (node.shape[2] for node in self.decoder.get_inputs() if node.name == "cache_key_0")
        self._cache_length = length if isinstance(length, int) else None  # one for all requests
        self._idle: list[_Lane] = []  # one, or as many as there were requests at once

    @contextmanager
    def next_tokens(
        self, prompt: Prompt, selection: Selection, visual_tokens: int, decoding: Decoding
    ) -> Iterator[Iterator[int]]:
        """An answer's token ids: to enter costs the prefill, each token but the first a decoder step."""
        kept, rule = selection.kept_indices, self.manifest.positions
        positions = prompt_positions(len(prompt.before), kept, len(prompt.after), visual_tokens, rule)
        lane = self._lane_for(self._capacity(positions.shape[1] + decoding.max_tokens))
        decoder, step, begin_steps = lane
        last = int(positions[0, -1])
        # In parts on a CPU: activations stay in its caches, and attention to what is behind a part is never computed.
        at_once = _TOKENS_AT_ONCE_HALF if decoder.cache.is_half else _TOKENS_AT_ONCE
        parts = -(-positions.shape[1] // at_once) if self._device == CPU else 1
        try:
            decoder.append(selection.prompt_embeds, positions, parts)
            self._room.give_back(selection.prompt_embeds)
            if decoding.sampler.is_greedy and begin_steps is not None:
                yield greedy_tokens(decoder.likeliest_token, begin_steps, last, decoding)
            else:
                yield answer_tokens(partial(chosen, decoder, decoding.sampler), step, last, decoding)
        finally:
            self._idle.append(lane)

    def _capacity(self, needed: int) -> int:
        """Of a request's cache: what it needs, unless the graph was loaded with one length for all."""
        if self._cache_length is None:
            return needed
        if needed > self._cache_length:
            raise PromptError(
                f"{needed} tokens exceed the cache of {self._cache_length} that {self.backend} has; shorten the "
                "question or lower --max-new-tokens."
            )
        return self._cache_length

    def _lane_for(self, capacity: int) -> _Lane:
        """An earlier request's, whose memory has been touched already, if it is neither too short nor far too long."""
        try:
            lane = self._idle.pop()  # no two threads get the same
        except IndexError:
            lane = None
        if lane is None or not capacity <= lane.decoder.cache.capacity <= _LONGEST_REUSED * capacity:
            decoder = CachedDecoder(self.decoder, self.manifest.model.text, capacity, self._device)
            lane = self._new_lane(decoder)
        lane.decoder.restart()
        return lane

    def _new_lane(self, decoder: CachedDecoder) -> _Lane:
        if self._device != CPU:
            return _Lane(decoder, partial(self._append, decoder), None)
        step = TokenStep(self._embed, decoder)
        return _Lane(decoder, step.run, step.begin_steps if decoder.embeds_choice else None)

    def _append(self, decoder: CachedDecoder, token: int, position: int) -> None:
        """Devices take their copies while binding: there a token goes the way of a prompt."""
        decoder.append(self.embed((token,)), np.array([[position]], np.int64))
