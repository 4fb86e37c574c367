"""The bundle's graphs in ONNX Runtime, with the inputs and outputs that each has to have.

Not here: how sessions are opened (``session``), the decoder's cache binding (``decoder``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grip_edge.attention_kernel import whole_score_matrices
from grip_edge.bundle import Bundle
from grip_edge.engines import GREEDY_TOKEN, NEXT_EMBEDS
from grip_edge.runtime.prompt import Prompt
from grip_edge.runtime.prompt_room import PromptRoom
from grip_edge.runtime.session import FLOAT_TYPES, PROVIDER, Attach, load_session, run_in_place
from grip_edge.tiles import TilePlan

BACKEND = "onnxruntime-cpu"

# Tiles that go through the vision tower at once: more would take memory, not save time.
_TILES_AT_ONCE = 4

# A graph with fewer weights than this is done before a second thread is awake (docs/log.md, selection cost).
_SMALL_BYTES = 2**20

_VISION = (("pixels",), ("features",))
_EMBED = (("token_ids",), ("embeds",))
_CLS_ATTENTION = "cls_attention"  # of vision.onnx and into select.onnx, for the policies that read it
_TILES = ("sources", "weights", "order")  # into select.onnx, of models that cut images into tiles
_SELECT = (("features", "question_embeds", "budget"), ("kept_embeds", "kept_indices", "scores"))


@dataclass(frozen=True)
class ImageFeatures:
    """What the vision graph gives of A tiles (A is 1 where an image is one view) with P patches each: ``tokens``
    [A,P,Dv], and ``cls_attention`` [A,P] if the bundle's policy reads it.
    """

    tokens: NDArray[Any]
    cls_attention: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Selection:
    """``prompt_embeds`` [1,S,D] is the whole prompt's, and ``kept_embeds`` [1,K,D] the part of it that is visual; both
    hold until the decoder has read them. ``kept_indices`` [K] ascending; ``scores`` [N].
    """

    prompt_embeds: NDArray[Any]
    kept_embeds: NDArray[Any]
    kept_indices: NDArray[np.int64]
    scores: NDArray[np.float32]


class SelectionGraphs:
    """The sessions of one bundle that stand between its tower and its decoder: embeddings and selection.

    ``threads`` None leaves the number to ONNX Runtime; ``attach`` where ``provider`` is a plugin.
    """

    def __init__(
        self, bundle: Bundle, threads: int | None = None, provider: str = PROVIDER, attach: Attach | None = None
    ) -> None:
        self.manifest = bundle.manifest
        config = bundle.manifest.session_config
        load = partial(load_session, provider=provider, attach=attach)
        cls_attention = (_CLS_ATTENTION,) if bundle.manifest.scorer.reads_cls_attention else ()
        self.vision_outputs = (*_VISION[1], *cls_attention)
        self._embed = load(bundle.path("embed.onnx"), *_EMBED, 1, config)  # a look-up
        tiles = () if bundle.manifest.image.tiling is None else _TILES
        select_inputs = (*_SELECT[0], *tiles, *cls_attention)
        self._select = load(
            bundle.path("select.onnx"),
            select_inputs,
            _SELECT[1],
            1 if _is_small(bundle, "select.onnx") else threads,
            config,
        )
        embeds = self._embed.get_outputs()[0]
        self._room = PromptRoom(embeds.shape[2], FLOAT_TYPES[embeds.type])

    def embed(self, token_ids: tuple[int, ...]) -> NDArray[Any]:
        """T token ids -> embeds [1,T,D]."""
        return np.asarray(self._embed.run(["embeds"], {"token_ids": np.array([token_ids], np.int64)})[0])

    def select(
        self, image: ImageFeatures, prompt: Prompt, budget_tokens: int, plan: TilePlan | None = None
    ) -> Selection:
        """The ``budget_tokens`` tokens that matter most to the prompt's question, in their place between its texts.
        ``plan`` is that of tiles.
        """
        texts = self.embed(prompt.question + prompt.before + prompt.after)  # one run for all
        question, text = texts[:, : len(prompt.question)], texts[:, len(prompt.question) :]
        budget = np.array([budget_tokens], np.int64)
        feeds = {"features": image.tokens, "question_embeds": question, "budget": budget}
        visual_tokens = image.tokens.shape[1]
        if plan is not None:
            feeds |= {"sources": plan.sources, "weights": plan.weights, "order": plan.order}
            visual_tokens = plan.visual_tokens
        if image.cls_attention is not None:
            feeds[_CLS_ATTENTION] = image.cls_attention
        start, end = len(prompt.before), len(prompt.before) + budget_tokens
        embeds = self._room.take(end + len(prompt.after))
        embeds[:, :start], embeds[:, end:] = text[:, :start], text[:, start:]
        kept_indices, scores = np.empty((1, budget_tokens), np.int64), np.empty((1, visual_tokens), np.float32)
        results = {"kept_embeds": embeds[:, start:end], "kept_indices": kept_indices, "scores": scores}
        run_in_place(self._select, feeds, results)
        return Selection(embeds, results["kept_embeds"], kept_indices[0], scores[0])


class Graphs(SelectionGraphs):
    """All four sessions of one bundle."""

    def __init__(
        self, bundle: Bundle, threads: int | None = None, provider: str = PROVIDER, attach: Attach | None = None
    ) -> None:
        super().__init__(bundle, threads, provider, attach)
        config = bundle.manifest.session_config
        load = partial(load_session, threads=threads, config=config, provider=provider, attach=attach)
        self._vision = load(bundle.path("vision.onnx"), _VISION[0], self.vision_outputs)
        with whole_score_matrices():
            names = decoder_names(bundle.manifest.model.text.layers)
            self.decoder = load(bundle.path("decoder.onnx"), *names, optional_outputs=(GREEDY_TOKEN, NEXT_EMBEDS))

    def encode_image(self, pixels: NDArray[np.float32]) -> ImageFeatures:
        """pixels [A,3,H,W] -> features of all patches."""
        return features_in_parts(lambda part: self._vision.run(list(self.vision_outputs), {"pixels": part}), pixels)


def features_in_parts(
    encode: Callable[[NDArray[np.float32]], Sequence[NDArray[Any]]], pixels: NDArray[np.float32]
) -> ImageFeatures:
    """pixels [A,3,H,W] of any number of tiles, a few at a time through ``encode``."""
    parts = [encode(pixels[start : start + _TILES_AT_ONCE]) for start in range(0, len(pixels), _TILES_AT_ONCE)]
    return ImageFeatures(*(np.concatenate(part) if len(part) > 1 else part[0] for part in zip(*parts, strict=True)))


def _is_small(bundle: Bundle, graph: str) -> bool:
    return sum(file.bytes for file in bundle.manifest.files if file.path.startswith(graph)) < _SMALL_BYTES


def decoder_names(layers: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the decoder's inputs and outputs."""
    caches = [f"cache_{kind}_{layer}" for layer in range(layers) for kind in ("key", "value")]
    return ("embeds", "position_ids", "write_start", *caches), ("logits", *(f"new_{name}" for name in caches))
