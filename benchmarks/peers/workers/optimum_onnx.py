"""Optimum's model class over ONNX Runtime, on as many tokens of text as the others have tokens of image and text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.peers.protocol import Message, serve
from benchmarks.peers.workers.common import (
    CHECKED_TEXT,
    CHECKED_TOKENS,
    Clock,
    Floats,
    checked,
    decode,
    text_ids,
    versions,
)


class Optimum:
    def __init__(self, settings: Message) -> None:
        from optimum.onnxruntime import ORTModelForCausalLM

        torch.set_num_threads(settings["threads"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings["threads"]
        self._model = ORTModelForCausalLM.from_pretrained(settings["folder"], session_options=options)

    def versions(self) -> Mapping[str, str]:
        return versions("optimum-onnx", "optimum", "onnxruntime", "transformers")

    def answer(self, kept: int, new_tokens: int) -> Message:
        ids = text_ids(kept)
        clock = Clock()
        logits, past = self._run(ids, len(ids), None)
        length = len(ids)

        def step(token: int) -> Floats:
            nonlocal past, length
            length += 1
            found, past = self._run([token], length, past)
            return found

        return clock.answer(decode(clock, logits, step, new_tokens), len(ids))

    def check(self, folder: Path) -> Message:
        logits, _ = self._run(text_ids(CHECKED_TEXT), len(text_ids(CHECKED_TEXT)), None)
        return checked(folder, self.answer(CHECKED_TEXT, CHECKED_TOKENS)["tokens"], None, logits)

    def _run(self, ids: list[int], length: int, past: Any) -> tuple[Floats, Any]:
        """Logits [V] of the last of ``ids``, which end at ``length``."""
        mask = torch.ones((1, length), dtype=torch.int64)
        out = self._model(input_ids=torch.tensor([ids]), attention_mask=mask, past_key_values=past, use_cache=True)
        return np.asarray(out.logits[0, -1].numpy()), out.past_key_values


if __name__ == "__main__":
    serve(Optimum)
