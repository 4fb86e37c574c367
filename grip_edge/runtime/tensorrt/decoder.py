"""The decoder on the device: the prompt with one profile, then tokens with the other, over one cache.

The greedy token is chosen on the device and is the next step's input there; the host reads 8 bytes per token. Where the
cache is written in place, a step (look-up of the token's embedding, decoder) is captured once as a CUDA graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from grip_edge.engines import GREEDY_TOKEN
from grip_edge.errors import PromptError
from grip_edge.manifest import TextSpec
from grip_edge.runtime.tensorrt.cache import DeviceCache
from grip_edge.runtime.tensorrt.device_array import DeviceArray
from grip_edge.runtime.tensorrt.driver import CudaError, Driver
from grip_edge.runtime.tensorrt.engine import Engine

PREFILL, DECODE = 0, 1


class DeviceDecoder:
    """Not shareable: one request at a time; ``reset`` starts the next one."""

    def __init__(
        self, driver: Driver, decoder: Engine, embed: Engine, spec: TextSpec, capacity: int, cache_in_place: bool
    ) -> None:
        self._driver = driver
        self.cache = DeviceCache(driver, decoder, spec, capacity, cache_in_place)
        self._prefill = decoder.context(PREFILL, driver.stream)
        self._decode = decoder.context(DECODE, driver.stream, captured=cache_in_place)
        self._embed = embed.context(0, driver.stream, captured=cache_in_place)
        self._positions = DeviceArray(driver, (1, capacity), np.int64)
        self._start = DeviceArray(driver, (1,), np.int64)
        self._token = DeviceArray(driver, (1, 1), np.int64)
        self._token_embed = DeviceArray(driver, (1, 1, spec.width), embed.dtype("embeds"))
        self._logits = DeviceArray(driver, (1, spec.vocab_size), decoder.dtype("logits"))
        self._graph: int | None = None
        self._may_capture = cache_in_place
        self._steps = 0

    def reset(self) -> None:
        self.cache.reset()

    def prompt(self, embeds: DeviceArray, position_ids: NDArray[np.int64]) -> None:
        """embeds [1,S,D], position_ids [1,S]."""
        count = embeds.shape[1]
        self._require_room(count)
        self._positions.fill(position_ids)
        self._start.fill(np.array([self.cache.filled]))
        self._bind(self._prefill, embeds)
        self._prefill.launch()
        self.cache.advance(count)

    def step(self, position: int, token: int | None = None) -> None:
        """One more token: the one that was chosen on the device, or ``token``."""
        self._require_room(1)
        if token is not None:
            self._token.fill(np.array([[token]]))
        self._positions.fill(np.array([[position]]))
        self._start.fill(np.array([self.cache.filled]))
        if self._graph is not None:
            self._driver.launch(self._graph)
        elif self._may_capture and self._steps > 0 and self._contexts_may_be_captured:  # the first may allocate
            self._capture()
        else:
            self._bind_step()
            self._launch_step()
        self._steps += 1
        self.cache.advance(1)

    def greedy_token(self) -> int:
        """Waits for the device."""
        return int(self._token.read()[0, 0])

    def logits(self) -> NDArray[Any]:
        """[V] on the host."""
        return np.asarray(self._logits.read()[0])

    @property
    def _contexts_may_be_captured(self) -> bool:
        return self._embed.may_be_captured and self._decode.may_be_captured

    @property
    def captured(self) -> bool:
        return self._graph is not None

    def _require_room(self, count: int) -> None:
        if self.cache.filled + count > self.cache.capacity:
            raise PromptError(
                f"{self.cache.filled + count} tokens exceed the engines' cache of {self.cache.capacity}; shorten the "
                "question, lower max-new-tokens, or build with a larger --max-new-tokens."
            )

    def _bind(self, context: Any, embeds: DeviceArray) -> None:
        inputs = {"embeds": embeds, "position_ids": self._positions, "write_start": self._start}
        context.bind(inputs, {"logits": self._logits, GREEDY_TOKEN: self._token})
        self.cache.bind(context)

    def _bind_step(self) -> None:
        self._embed.bind({"token_ids": self._token}, {"embeds": self._token_embed})
        self._bind(self._decode, self._token_embed)

    def _launch_step(self) -> None:
        self._embed.launch()
        self._decode.launch()

    def _capture(self) -> None:
        """Addresses and shapes are the same in every step, so one recording serves all."""
        self._bind_step()
        try:
            self._driver.begin_capture()
            try:
                self._launch_step()
            finally:
                graph = self._driver.end_capture()
        except CudaError:  # an engine that cannot be captured still runs
            self._may_capture = False
            self._launch_step()
        else:
            self._graph = graph
            self._driver.launch(graph)
