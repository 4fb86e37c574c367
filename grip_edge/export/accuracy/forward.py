"""All questions through the four graphs of a bundle: the logits that decide each token of the right answers.

The right answer is given token by token (teacher forcing), so that models are compared on the same text. Every position
is a prompt of its own; nothing is cached, and each weight is read once for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grip_edge.export.accuracy.piecewise import Feeds, Observer, run_over
from grip_edge.export.accuracy.questions import AskedPrompt, Positions, QuestionSet, positions
from grip_edge.export.graph_runner import cache_type
from grip_edge.manifest import TextSpec

Array = NDArray[Any]

_SELECT_OUTPUTS = ("kept_embeds",)


class ForwardPass:
    """``config`` is what ONNX Runtime must be told; ``observers`` are by file name."""

    def __init__(
        self, folder: Path, text: TextSpec, config: Mapping[str, str], observers: Mapping[str, Observer] | None = None
    ) -> None:
        self._folder = folder
        self._text = text
        self._config = config
        self._observers = observers or {}

    def logits(self, asked: QuestionSet) -> Positions:
        vision = self._run("vision.onnx", [{"pixels": pixels} for pixels in asked.pixels], None)
        embeds = self._embed([(*p.before, *p.after, *p.compared) for p in asked.prompts])
        questions = self._embed([p.question for p in asked.prompts])
        chosen = [
            {**vision[p.image], "question_embeds": question, "budget": np.array([p.budget_tokens])}
            for p, question in zip(asked.prompts, questions, strict=True)
        ]
        kept = self._run("select.onnx", chosen, _SELECT_OUTPUTS)
        sequences = [
            sequence
            for prompt, words, image in zip(asked.prompts, embeds, kept, strict=True)
            for sequence in _sequences(prompt, words, image["kept_embeds"])
        ]
        dtype = cache_type(self._folder / "decoder.onnx")
        found = self._run("decoder.onnx", [self._decoder_feeds(sequence, dtype) for sequence in sequences], ("logits",))
        return positions(asked.prompts, [row["logits"][0] for row in found])

    def _embed(self, token_ids: list[tuple[int, ...]]) -> list[Array]:
        rows = self._run("embed.onnx", [{"token_ids": np.array([ids])} for ids in token_ids], ("embeds",))
        return [row["embeds"] for row in rows]

    def _decoder_feeds(self, embeds: Array, cache_dtype: np.dtype[Any]) -> Feeds:
        text, length = self._text, embeds.shape[1]
        empty = np.zeros((1, text.kv_heads, length, text.head_dim), cache_dtype)
        caches = {f"cache_{kind}_{layer}": empty for layer in range(text.layers) for kind in ("key", "value")}
        return {"embeds": embeds, "position_ids": np.arange(length)[None], "write_start": np.array([0]), **caches}

    def _run(self, name: str, feeds: list[Any], outputs: tuple[str, ...] | None) -> list[dict[str, Array]]:
        path = self._folder / name
        return run_over(path, self._config, feeds, outputs, self._observers.get(name))


def _sequences(prompt: AskedPrompt, words: Array, image: Array) -> list[Array]:
    """The prompt with 0, 1, ... tokens of the answer: [1,S,D] each."""
    before, behind = len(prompt.before), len(prompt.before) + len(prompt.after)
    start = np.concatenate([words[:, :before], image, words[:, before:behind]], axis=1)
    return [np.concatenate([start, words[:, behind : behind + count]], axis=1) for count in range(len(prompt.compared))]
