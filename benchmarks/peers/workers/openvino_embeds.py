"""OpenVINO's runtime on the graphs that its GenAI pipeline runs, driven with as many visual tokens as asked for.

As in that pipeline, the LM head works on the last token only; it is cut in here, since the files do not have that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13

from benchmarks.peers.protocol import Message, serve
from benchmarks.peers.workers.common import (
    CHECKED_TOKENS,
    Clock,
    Floats,
    checked,
    decode,
    kept_rows,
    pixels,
    prompt_ids,
    versions,
)


class OpenVinoEmbeds:
    def __init__(self, settings: Message) -> None:
        core, folder = openvino.Core(), Path(settings["folder"])
        config = {"INFERENCE_NUM_THREADS": settings["threads"], "PERFORMANCE_HINT": "LATENCY"}

        def request(name: str, change: Any = lambda model: None) -> Any:
            model = core.read_model(folder / f"openvino_{name}_model.xml")
            change(model)
            return core.compile_model(model, "CPU", config).create_infer_request()

        self._vision, self._embed = request("vision_embeddings"), request("text_embeddings")
        self._decoder = request("language", _last_token_only)
        self._picture = Path(settings["picture"])
        self._before, self._after = prompt_ids()

    def versions(self) -> Mapping[str, str]:
        return versions("openvino")

    def answer(self, kept: int, new_tokens: int) -> Message:
        clock = Clock()
        features = self._features()
        clock.vision_done()
        embeds = self._prompt(features, kept)
        logits = self._prefill(embeds)
        length = embeds.shape[1]

        def step(token: int) -> Floats:
            nonlocal length
            found = self._run(self._token_embeds([token]), length)
            length += 1
            return found

        return clock.answer(decode(clock, logits, step, new_tokens), embeds.shape[1])

    def check(self, folder: Path) -> Message:
        features = self._features()
        logits = self._prefill(self._prompt(features, len(features)))
        return checked(folder, self.answer(len(features), CHECKED_TOKENS)["tokens"], features, logits)

    def _features(self) -> Floats:
        """[N,D], projected."""
        self._vision.infer({"pixel_values": pixels(self._picture)})
        return np.array(self._vision.get_tensor("last_hidden_state").data[0])

    def _token_embeds(self, ids: list[int]) -> Floats:
        self._embed.infer([np.array([ids], np.int64)])
        return np.array(self._embed.get_output_tensor(0).data)

    def _prompt(self, features: Floats, kept: int) -> Floats:
        before, after = self._token_embeds(self._before), self._token_embeds(self._after)
        return np.concatenate([before, features[None, kept_rows(len(features), kept)], after], axis=1)

    def _prefill(self, embeds: Floats) -> Floats:
        self._decoder.reset_state()
        return self._run(embeds, 0)

    def _run(self, embeds: Floats, start: int) -> Floats:
        """embeds [1,S,D] behind ``start`` tokens -> logits [V] of the last."""
        end = start + embeds.shape[1]
        positions: NDArray[np.int64] = np.arange(start, end)[None]
        feeds = {"inputs_embeds": embeds, "attention_mask": np.ones((1, end), np.int64), "position_ids": positions}
        self._decoder.infer(feeds | {"beam_idx": np.zeros(1, np.int32)})
        return np.asarray(self._decoder.get_tensor("logits").data[0, -1])


def _last_token_only(model: Any) -> None:
    """Puts a slice of the last token between the last norm and the LM head."""
    node = next(result for result in model.get_results()).input_value(0).get_node()
    while node.get_type_name() != "MatMul":
        node = node.input_value(0).get_node()
    last, after, step, axis = (opset13.constant(np.array([number])) for number in (-1, 2**62, 1, 1))
    cut = opset13.slice(node.input_value(0), last, after, step, axis)
    node.input(0).replace_source_output(cut.output(0))
    model.validate_nodes_and_infer_types()


if __name__ == "__main__":
    serve(OpenVinoEmbeds)
