"""The four graphs of a bundle: networks, example inputs, names, dynamic axes, and where each weight comes from.

Not here: tracing and writing (``tracing``, ``fill``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.networks.clip import ClipConfig, ClipTower
from grip_edge.export.networks.llama import LlamaDecoder, TokenEmbedding, rotary_tables
from grip_edge.export.networks.projector import Projector
from grip_edge.export.networks.siglip import SiglipConfig, SiglipTower
from grip_edge.export.selector import Selector

# Sizes of the example inputs along dynamic axes. They differ, so that no two axes are taken for one.
_TEXT, _SEQUENCE, _CAPACITY = 5, 7, 11
_TILES, _MIXED, _MADE, _TOKENS = 3, 4, 13, 17

_EMBEDDING = "language_model.embed_tokens.weight"


@dataclass(frozen=True)
class Graph:
    """``make`` builds module and example inputs, and is called under fake tensors.

    ``source`` tells for each parameter and buffer the checkpoint's tensor (its canonical name) or the tensor itself.
    """

    file_name: str
    make: Callable[[], tuple[nn.Module, tuple[Any, ...]]]
    source: Callable[[str], str | Tensor]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic_shapes: tuple[Any, ...]


def bundle_graphs(checkpoint: Checkpoint, selector: Selector) -> tuple[Graph, ...]:
    return (
        vision_graph(checkpoint, selector.reads_cls_attention),
        embed_graph(checkpoint),
        select_graph(checkpoint, selector),
        decoder_graph(checkpoint),
    )


def vision_graph(checkpoint: Checkpoint, with_cls_attention: bool = False) -> Graph:
    side_px, tiled = checkpoint.vision.image_side_px, checkpoint.tiling is not None
    pixels = (_TILES if tiled else 1, 3, side_px, side_px)
    return Graph(
        file_name="vision.onnx",
        make=lambda: (_tower(checkpoint, with_cls_attention), (torch.zeros(pixels),)),
        source=lambda name: f"vision_tower.{name}",
        input_names=("pixels",),
        output_names=("features", "cls_attention") if with_cls_attention else ("features",),
        dynamic_shapes=({0: "A"} if tiled else {},),
    )


def _tower(checkpoint: Checkpoint, with_cls_attention: bool) -> nn.Module:
    match checkpoint.vision:
        case ClipConfig() as config:
            return ClipTower(config, with_cls_attention)
        case SiglipConfig() as config if not with_cls_attention:
            return SiglipTower(config)
    raise ValueError(f"no tower of {checkpoint.vision}, CLS attention: {with_cls_attention}")


def embed_graph(checkpoint: Checkpoint) -> Graph:
    text = checkpoint.text
    token_ids = (1, _TEXT)
    return Graph(
        file_name="embed.onnx",
        make=lambda: (TokenEmbedding(text.vocab_size, text.width), (torch.zeros(token_ids, dtype=torch.int64),)),
        source=lambda name: f"language_model.{name}",
        input_names=("token_ids",),
        output_names=("embeds",),
        dynamic_shapes=({1: "T"},),
    )


def select_graph(checkpoint: Checkpoint, selector: Selector) -> Graph:
    weights = selector.weights()
    inputs = _select_inputs(checkpoint, selector.reads_cls_attention)

    def make() -> tuple[nn.Module, tuple[Any, ...]]:
        config = checkpoint.config
        widths = checkpoint.vision.width, checkpoint.text.width
        projector = Projector(*widths, config.projector_hidden_act, config.multimodal_projector_bias)
        return selector.network(projector), tuple(make_input() for make_input, _ in inputs.values())

    def source(name: str) -> str | Tensor:
        owner, _, rest = name.partition(".")
        if owner == "scorer":
            return weights[rest]
        return f"multi_modal_projector.{rest}" if owner == "projector" else name

    return Graph(
        file_name="select.onnx",
        make=make,
        source=source,
        input_names=tuple(inputs),
        output_names=("kept_embeds", "kept_indices", "scores"),
        dynamic_shapes=tuple(dynamic for _, dynamic in inputs.values()),
    )


def _select_inputs(
    checkpoint: Checkpoint, with_cls_attention: bool
) -> dict[str, tuple[Callable[[], Tensor], dict[int, str]]]:
    """Name -> what makes an example, and the dynamic axes."""
    patches, vision_width, text_width = checkpoint.vision.grid**2, checkpoint.vision.width, checkpoint.text.width
    tiled = checkpoint.tiling is not None
    tiles, over_tiles = (_TILES, {0: "A"}) if tiled else (1, {})
    inputs: dict[str, tuple[Callable[[], Tensor], dict[int, str]]] = {
        "features": (lambda: torch.zeros(tiles, patches, vision_width), over_tiles),
        "question_embeds": (lambda: torch.zeros(1, _TEXT, text_width), {1: "T"}),
        "budget": (lambda: torch.ones(1, dtype=torch.int64), {}),
    }
    if tiled:
        made = (_MADE, _MIXED)
        inputs["sources"] = (lambda: torch.zeros(made, dtype=torch.int64), {0: "L", 1: "M"})
        inputs["weights"] = (lambda: torch.zeros(made), {0: "L", 1: "M"})
        inputs["order"] = (lambda: torch.zeros(_TOKENS, dtype=torch.int64), {0: "N"})
    if with_cls_attention:
        inputs["cls_attention"] = (lambda: torch.zeros(tiles, patches), over_tiles)
    return inputs


def decoder_graph(checkpoint: Checkpoint) -> Graph:
    text = checkpoint.text
    cos, sin = rotary_tables(text)
    own: dict[str, str | Tensor] = {
        "lm_head.weight": _EMBEDDING if checkpoint.config.tie_word_embeddings else "lm_head.weight",
        "rotary_cos": cos,
        "rotary_sin": sin,
    }
    cache_names = [f"cache_{kind}_{layer}" for layer in range(text.layers) for kind in ("key", "value")]

    def make() -> tuple[nn.Module, tuple[Any, ...]]:
        positions, start = torch.zeros(1, _SEQUENCE, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
        shape = (1, text.kv_heads, _CAPACITY, text.head_dim)
        caches = tuple((torch.zeros(shape), torch.zeros(shape)) for _ in range(text.layers))
        return LlamaDecoder(text), (torch.zeros(1, _SEQUENCE, text.width), positions, start, caches)

    return Graph(
        file_name="decoder.onnx",
        make=make,
        source=lambda name: own.get(name, f"language_model.{name}"),
        input_names=("embeds", "position_ids", "write_start", *cache_names),
        output_names=("logits", *(f"new_{name}" for name in cache_names)),
        dynamic_shapes=({1: "S"}, {1: "S"}, {}, (({2: "C"}, {2: "C"}),) * text.layers),
    )
