"""One more token on a CPU: its embedding looked up and the decoder's run over it, everything bound once.

After each run of a large decoder nothing of Python is left in the processor's caches, and a line of it then costs
microseconds: so a step is three numbers written and two runs.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from grip_edge.runtime.cache import FLOAT_TYPES
from grip_edge.runtime.decoder import CachedDecoder


class TokenStep:
    """Continues what ``decoder`` has seen, and leaves its results there."""

    def __init__(self, embed: ort.InferenceSession, decoder: CachedDecoder) -> None:
        found = embed.get_outputs()[0]
        embeds = np.empty((1, 1, found.shape[2]), FLOAT_TYPES[found.type])
        token, position, start = np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int64), np.zeros(1, np.int64)
        self._arrays = embeds, token, position, start  # bindings do not keep them
        self._token, self._position, self._start = token[0].data, position[0].data, start.data
        self._look_up, self._look_up_binding = embed.run_with_iobinding, embed.io_binding()
        self._decode, self._decode_binding = decoder.session.run_with_iobinding, decoder.new_binding()
        self._cache = decoder.cache
        embeds_value = ort.OrtValue.ortvalue_from_numpy(embeds)
        self._look_up_binding.bind_ortvalue_input("token_ids", ort.OrtValue.ortvalue_from_numpy(token))
        self._look_up_binding.bind_ortvalue_output("embeds", embeds_value)
        self._decode_binding.bind_ortvalue_input("embeds", embeds_value)
        for name, array in (("position_ids", position), ("write_start", start)):
            self._decode_binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))

    def run(self, token: int, position: int) -> None:
        self._token[0], self._position[0], self._start[0] = token, position, self._cache.take(1)
        self._look_up(self._look_up_binding)
        self._decode(self._decode_binding)
