"""The exported graphs in ONNX Runtime, put together in the plainest way, to be compared with the reference.

Independent of the runtime on purpose: what is checked here are the graphs. Not here: speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from grip_edge.bundle import GRAPH_NAMES
from grip_edge.export.reference import Answer, Request
from grip_edge.manifest import PromptSpec, TextSpec

Array = NDArray[Any]


class Session(Protocol):
    """The part of ONNX Runtime's session that is used here."""

    def run(self, output_names: list[str] | None, feeds: dict[str, Array]) -> list[Array]: ...


# Opens a graph; the mapping is what ONNX Runtime must be told about it.
OpenSession = Callable[[Path, Mapping[str, str]], Session]


class GraphRunner:
    def __init__(
        self,
        folder: Path,
        text: TextSpec,
        prompt: PromptSpec,
        session_config: Mapping[str, str],
        open_session: OpenSession,
    ) -> None:
        self._sessions = {name: open_session(folder / name, session_config) for name in GRAPH_NAMES}
        self._text = text
        self._prompt = prompt
        self._cache_type = cache_type(folder / "decoder.onnx")

    def encode(self, request: Request) -> dict[str, Array]:
        """The vision graph's outputs by name, which are inputs of the select graph under the same names."""
        outputs = self._run("vision.onnx", pixels=request.pixels.numpy())
        return dict(zip(("features", "cls_attention"), outputs, strict=False))

    def answer(self, request: Request, vision: dict[str, Array], kept: int, new_tokens: int) -> Answer:
        question_embeds, plan = self._embed(request.question_ids.numpy()), request.plan
        tiles: dict[str, Array] = (
            {} if plan is None else {"sources": plan.sources, "weights": plan.weights, "order": plan.order}
        )
        kept_embeds, kept_indices, scores = self._run(
            "select.onnx", **vision, **tiles, question_embeds=question_embeds, budget=np.array([kept])
        )
        ids = request.prompt_ids.numpy()
        place = int(np.flatnonzero(ids[0] == self._prompt.image_token_id)[0])
        embeds = np.concatenate([self._embed(ids[:, :place]), kept_embeds, self._embed(ids[:, place + 1 :])], axis=1)
        logits, tokens = self._decode(embeds, new_tokens)
        return Answer(logits, tokens, tuple(kept_indices[0].tolist()), scores)

    def _decode(self, embeds: Array, new_tokens: int) -> tuple[NDArray[np.float32], tuple[int, ...]]:
        """Greedy: logits of the prompt's last position, and the new tokens."""
        text = self._text
        shape = (1, text.kv_heads, embeds.shape[1] + new_tokens, text.head_dim)
        names = [f"cache_{kind}_{layer}" for layer in range(text.layers) for kind in ("key", "value")]
        # All empty caches are one array: graphs only read it, and give new ones.
        caches = dict.fromkeys(names, np.zeros(shape, self._cache_type))
        first_logits, start = None, 0
        tokens: list[int] = []
        while True:
            last = len(tokens) + 1 == new_tokens
            outputs = ["logits"] if last else ["logits", *(f"new_{name}" for name in names)]
            feeds = {
                "embeds": embeds,
                "position_ids": np.arange(start, start + embeds.shape[1])[None],
                "write_start": np.array([start]),
                **caches,
            }
            logits, *new_caches = self._sessions["decoder.onnx"].run(outputs, feeds)
            first_logits = logits[0] if first_logits is None else first_logits
            tokens.append(int(logits[0].argmax()))
            if last or tokens[-1] in self._prompt.stop_token_ids:
                return first_logits, tuple(tokens)
            caches = dict(zip(names, new_caches, strict=True))
            start += embeds.shape[1]
            embeds = self._embed(np.array([tokens[-1:]]))

    def _embed(self, token_ids: Array) -> Array:
        return self._run("embed.onnx", token_ids=token_ids)[0]

    def _run(self, name: str, **inputs: Array) -> list[Array]:
        return self._sessions[name].run(None, inputs)


def cache_type(decoder: Path) -> np.dtype[Any]:
    """Of keys and values, as the graph at ``decoder`` takes them."""
    inputs = {value.name: value for value in onnx.load(decoder, load_external_data=False).graph.input}
    return onnx.helper.tensor_dtype_to_np_dtype(inputs["cache_key_0"].type.tensor_type.elem_type)


def whole_session(path: Path, config: Mapping[str, str]) -> Session:
    """A session that holds the whole graph."""
    session: Session = ort.InferenceSession(path, session_options(config), providers=["CPUExecutionProvider"])
    return session


def session_options(config: Mapping[str, str]) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    return options
