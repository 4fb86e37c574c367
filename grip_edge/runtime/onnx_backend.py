"""The bundle's graphs in ONNX Runtime: sessions with checked inputs and outputs.

A graph that cannot be loaded, or that is not the graph its name promises, is a ``BundleError`` naming the file.
Not here: the decoder's cache binding (``decoder``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from grip_edge.allocator import large_blocks_returned
from grip_edge.attention_kernel import whole_score_matrices
from grip_edge.bundle import Bundle
from grip_edge.engines import GREEDY_TOKEN, NEXT_EMBEDS
from grip_edge.errors import BundleError, GripEdgeError, UserError
from grip_edge.mapped_files import give_back_pages
from grip_edge.runtime.prompt import Prompt
from grip_edge.runtime.prompt_room import PromptRoom
from grip_edge.runtime.shared_arena import use_shared_arena
from grip_edge.tiles import TilePlan

PROVIDER = "CPUExecutionProvider"
BACKEND = "onnxruntime-cpu"

# Tiles that go through the vision tower at once: more would take memory, not save time.
_TILES_AT_ONCE = 4

# A graph with fewer weights than this is done before a second thread is awake (docs/log.md, selection cost).
_SMALL_BYTES = 2**20

# In ONNX Runtime's message about a graph of an opset that came after it.
_NEWER_OPSET = re.compile(r"Opset (\d+) is under development")

FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

Attach = Callable[[ort.SessionOptions, str], None]
"""Gives a session's options a provider that is a plugin, for the graph of that file name."""

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
        feeds = {
            "features": image.tokens,
            "question_embeds": self.embed(prompt.question),
            "budget": np.array([budget_tokens], np.int64),
        }
        visual_tokens = image.tokens.shape[1]
        if plan is not None:
            feeds |= {"sources": plan.sources, "weights": plan.weights, "order": plan.order}
            visual_tokens = plan.visual_tokens
        if image.cls_attention is not None:
            feeds[_CLS_ATTENTION] = image.cls_attention
        start, end = len(prompt.before), len(prompt.before) + budget_tokens
        embeds = self._room.take(end + len(prompt.after))
        text = self.embed(prompt.before + prompt.after)
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


def run_in_place(
    session: ort.InferenceSession, feeds: Mapping[str, NDArray[Any]], results: Mapping[str, NDArray[Any]]
) -> None:
    """Reads ``feeds`` and overwrites ``results``."""
    binding = session.io_binding()
    given = {name: np.ascontiguousarray(array) for name, array in feeds.items()}  # which live until the run ends
    for name, array in given.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for name, array in results.items():
        binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
    session.run_with_iobinding(binding)


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


def load_session(
    path: Path,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    threads: int | None,
    config: Mapping[str, str] = MappingProxyType({}),
    provider: str = PROVIDER,
    attach: Attach | None = None,
    optional_outputs: tuple[str, ...] = (),
) -> ort.InferenceSession:
    """``config`` is what the bundle wants ONNX Runtime to be told. Nodes that ``provider`` lacks run on the CPU, but
    never all of them, and none where it is a plugin, which compiles whole graphs.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors come as exceptions
    # Four sessions have four thread pools: waiting threads spin within a run and then leave the cores to the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.enable_mem_pattern = False  # plans memory for every length of prompt apart, which saves no time here
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    if threads is not None:
        options.intra_op_num_threads = threads
    if provider == PROVIDER:
        use_shared_arena(options)
    else:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = list(dict.fromkeys((provider, PROVIDER)))
    if attach is not None:
        attach(options, path.name)
        providers = []
    try:
        with large_blocks_returned():
            session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # every ONNX Runtime error is a class of its own below Exception
        raise _not_loaded(path, str(error)) from None
    give_back_pages(path.parent)
    if provider != PROVIDER:
        _require_provider(session, path, provider, wholly=attach is not None)
    for kind, expected, nodes in (
        ("inputs", inputs, session.get_inputs()),
        ("outputs", outputs, session.get_outputs()),
    ):
        found = [node.name for node in nodes if node.name not in optional_outputs]
        if sorted(found) != sorted(expected):
            raise BundleError(
                f"{path} has the {kind} {', '.join(found)}; expected {', '.join(expected)}. Export the bundle again."
            )
    return session


def _not_loaded(path: Path, error: str) -> GripEdgeError:
    newer = _NEWER_OPSET.search(error)
    if newer is None:
        return BundleError(f"{path} cannot be loaded ({' '.join(error.split())[:200]}); export the bundle again.")
    return UserError(
        f"{path} is of opset {newer.group(1)}, which ONNX Runtime {ort.__version__} does not know: take 1.30 or newer, "
        "for Python 3.11 or newer, or export the bundle with --target jetpack-6.2, for opset 20."
    )


def _require_provider(session: ort.InferenceSession, path: Path, provider: str, wholly: bool) -> None:
    """UserError where the CPU took over: ONNX Runtime says so in its log at most, and may still list the provider."""
    first = session.get_providers()[0]
    if first != provider:
        raise UserError(
            f"ONNX Runtime runs {path.name} with {first}, not with {provider}; install the driver and libraries that "
            "it needs, or choose another --backend."
        )
    assigned = getattr(session, "get_provider_graph_assignment_info", None)
    if assigned is None:  # before ONNX Runtime 1.24
        return
    nodes = Counter((part.ep_name == provider, node.op_type) for part in assigned() for node in part.get_nodes())
    elsewhere = sorted(operator for (there, operator) in nodes if not there)
    if elsewhere and (wholly or not any(there for there, _ in nodes)):
        raise UserError(
            f"{provider} leaves {', '.join(elsewhere[:5])} of {path.name} to the CPU; choose another --backend, or "
            "export the bundle for another target."
        )
