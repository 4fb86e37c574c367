"""The decoder with the cache inside of its graph: the prompt in one run or several, then one token at a time.

The arrays of a step are its tensors: a step is two numbers written and two runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
import openvino as ov
from numpy.typing import NDArray

from grip_edge.engines import GREEDY_TOKEN
from grip_edge.runtime.openvino.stateful_graph import ROWS
from grip_edge.runtime.sampling import not_a_number
from grip_edge.runtime.token_step import bound_look_up


class StatefulDecoder:
    """Not shareable: one request at a time. ``logits`` [V] are those after the last token, until the next one."""

    def __init__(self, decoder: ov.CompiledModel, embed: ort.InferenceSession) -> None:
        width = decoder.input("embeds").partial_shape[2].get_length()
        embeds = np.zeros((1, 1, width), np.float32)
        token, position, likeliest = (np.zeros((1, 1), np.int64) for _ in range(3))
        self.logits = np.empty(decoder.output("logits").partial_shape[1].get_length(), np.float32)
        start = np.zeros(1, np.int64)
        # Requests do not keep what their tensors are made of.
        self._step = {"embeds": embeds, "position_ids": position}
        self._always: dict[str, NDArray[Any]] = {
            "write_start": start,
            ROWS: np.zeros(1, np.int32),
            "logits": self.logits[None],
        }
        self._chooses = any(GREEDY_TOKEN in port.names for port in decoder.outputs)
        if self._chooses:
            self._always[GREEDY_TOKEN] = likeliest
        # Plain views: numpy's indexing takes 25 us where nothing of it is in the processor's caches.
        self._token, self._position, self._likeliest = token[0].data, position[0].data, likeliest[0].data
        self._start, self._logits = start.data, self.logits.data
        self._look_up, self._looked_up = bound_look_up(embed, token, embeds), (token, embeds)
        self._request = decoder.create_infer_request()
        self._set(self._always)
        self._at_steps = False

    def restart(self) -> None:
        """Forgets the tokens seen."""
        self._request.reset_state()
        self._start[0] = 0

    def append(self, embeds: NDArray[Any], position_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """embeds [1,S,D] and position_ids [1,S] of S new tokens -> logits [V] after the last."""
        feeds = {"embeds": np.ascontiguousarray(embeds), "position_ids": np.ascontiguousarray(position_ids)}
        self._set(feeds)
        self._at_steps = False
        self._request.infer(share_outputs=True)
        self._start[0] += embeds.shape[1]
        return self.logits

    def step(self, token: int, position: int) -> None:
        """One token more."""
        self._token[0], self._position[0] = token, position
        if not self._at_steps:
            self._set(self._step)
            self._at_steps = True
        self._look_up()
        self._request.infer(share_outputs=True)
        self._start[0] += 1

    def likeliest_token(self) -> int:
        """After the last run; BundleError if its logit is not a number."""
        token: int = self._likeliest[0] if self._chooses else int(np.argmax(self.logits))
        logit = self._logits[token]
        if logit != logit:  # NaN, in fewer instructions than a call
            raise not_a_number()
        return token

    def _set(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Their own memory becomes the tensors'."""
        for name, array in arrays.items():
            self._request.set_tensor(name, ov.Tensor(array, shared_memory=True))
