"""ONNX Runtime GenAI's generator on as many tokens of text as the others have tokens of image and text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai

from benchmarks.peers.protocol import Message, serve
from benchmarks.peers.workers.common import CHECKED_TEXT, CHECKED_TOKENS, Clock, checked, text_ids, versions


class OnnxRuntimeGenAI:
    def __init__(self, settings: Message) -> None:
        config = onnxruntime_genai.Config(settings["folder"])
        options = {"intra_op_num_threads": settings["threads"]}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = onnxruntime_genai.Model(config)

    def versions(self) -> Mapping[str, str]:
        return versions("onnxruntime-genai", "onnxruntime")

    def answer(self, kept: int, new_tokens: int) -> Message:
        ids = text_ids(kept)
        clock = Clock()
        generator = self._generator(len(ids) + new_tokens)
        generator.append_tokens(ids)
        tokens: list[int] = []
        while len(tokens) < new_tokens:
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
            clock.token()
        return clock.answer(tokens, len(ids))

    def check(self, folder: Path) -> Message:
        ids = text_ids(CHECKED_TEXT)
        generator = self._generator(len(ids) + CHECKED_TOKENS)
        generator.append_tokens(ids)
        logits = np.asarray(generator.get_logits()).reshape(-1)
        return checked(folder, self.answer(CHECKED_TEXT, CHECKED_TOKENS)["tokens"], None, logits)

    def _generator(self, length: int) -> Any:
        """Greedy, to the full length: a stop token does not end it."""
        params = onnxruntime_genai.GeneratorParams(self._model)
        params.set_search_options(max_length=length, min_length=length, do_sample=False)
        return onnxruntime_genai.Generator(self._model, params)


if __name__ == "__main__":
    serve(OnnxRuntimeGenAI)
