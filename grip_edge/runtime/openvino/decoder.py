"""The decoder with the cache inside of its graph: the prompt in one run or several, then one token at a time.

The arrays of a step are its tensors: a step is two numbers written and one run, or two where the graph does not embed
the token that it finds likeliest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
import openvino as ov
from numpy.typing import NDArray

from grip_edge.engines import GREEDY_TOKEN, NEXT_EMBEDS
from grip_edge.runtime.openvino.stateful_graph import ROWS
from grip_edge.runtime.sampling import not_a_number
from grip_edge.runtime.token_loop import GreedyStep
from grip_edge.runtime.token_step import bound_look_up


class StatefulDecoder:
    """Not shareable: one request at a time. ``logits`` [V] are those after the last token, until the next one."""

    def __init__(self, decoder: ov.CompiledModel, embed: ort.InferenceSession) -> None:
        width = decoder.input("embeds").partial_shape[2].get_length()
        embeds = np.zeros((1, 1, width), np.float32)
        token, position, likeliest = (np.zeros((1, 1), np.int64) for _ in range(3))
        self.logits = np.empty(decoder.output("logits").partial_shape[1].get_length(), np.float32)
        start = np.zeros(1, np.int64)
        outputs = {name for port in decoder.outputs for name in port.names}
        self._chooses = GREEDY_TOKEN in outputs
        made = {"logits": self.logits[None], GREEDY_TOKEN: likeliest, NEXT_EMBEDS: embeds}
        always: dict[str, NDArray[Any]] = {name: made[name] for name in made if name in outputs}
        always |= {"write_start": start, ROWS: np.zeros(1, np.int32)}
        step = {"embeds": embeds, "position_ids": position}
        self._arrays = always | step  # tensors do not keep what they are made of
        self._step = _tensors(step)
        self._token, self._position, self._likeliest = token[0].data, position[0].data, likeliest[0].data
        self._start, self._logits = start.data, self.logits.data
        self._look_up = bound_look_up(embed, token, embeds)
        self._request = decoder.create_infer_request()
        self._set(_tensors(always))
        self._at_steps = False
        self.embeds_choice = NEXT_EMBEDS in outputs
        self._greedy = GreedyStep(StatefulDecoder.run, self, self._position, self._start, self._likeliest, self._logits)

    def restart(self) -> None:
        """Forgets the tokens seen."""
        self._request.reset_state()
        self._start[0] = 0

    def append(self, embeds: NDArray[Any], position_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """embeds [1,S,D] and position_ids [1,S] of S new tokens -> logits [V] after the last."""
        prompt = {"embeds": np.ascontiguousarray(embeds), "position_ids": np.ascontiguousarray(position_ids)}
        self._set(_tensors(prompt))
        self._at_steps = False
        self.run()
        self._start[0] += embeds.shape[1]
        return self.logits

    def step(self, token: int, position: int) -> None:
        """One token more."""
        self._prepare_steps()
        self._token[0], self._position[0] = token, position
        self._look_up()
        self.run()
        self._start[0] += 1

    def begin_steps(self, count: int) -> tuple[GreedyStep, int]:
        """``token_loop.BeginSteps`` of a graph that ``embeds_choice``."""
        self._prepare_steps()
        return self._greedy, self._start[0]

    def likeliest_token(self) -> int:
        """After the last run; BundleError if its logit is not a number."""
        token: int = self._likeliest[0] if self._chooses else int(np.argmax(self.logits))
        logit = self._logits[token]
        if logit != logit:  # NaN, in fewer instructions than a call
            raise not_a_number()
        return token

    def _prepare_steps(self) -> None:
        if not self._at_steps:
            self._set(self._step)
            self._at_steps = True

    def run(self) -> None:
        """As ``infer``, which makes arrays of all outputs as well: 10 us of each step."""
        try:
            self._request.start_async(share_inputs=True)
        finally:  # also where Ctrl-C came between the two: a request that runs takes no tensors
            self._request.wait()

    def _set(self, tensors: Mapping[str, ov.Tensor]) -> None:
        for name, tensor in tensors.items():
            self._request.set_tensor(name, tensor)


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, ov.Tensor]:
    """Whose memory is that of the arrays."""
    return {name: ov.Tensor(array, shared_memory=True) for name, array in arrays.items()}
