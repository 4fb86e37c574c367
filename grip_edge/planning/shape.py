"""The sizes of a LLaVA model, read from its ``config.json``; nothing else of a model is needed to forecast it.

Families: LLaVA-1.5, LLaVA-NeXT and LLaVA-OneVision. For the last two, which cut an image into tiles, the sizes are
those of the image that needs most of them. Not here: whether the export can do the model (it says so itself).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from grip_edge.errors import UserError

Config = dict[str, Any]

FAMILIES = ("llava", "llava_next", "llava_onevision")

# What transformers takes where a configuration is silent.
_TEXT_DEFAULTS: dict[str, Config] = {
    "llama": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
              "max_position_embeddings": 2048, "vocab_size": 32000},
    "mistral": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
                "num_key_value_heads": 8, "max_position_embeddings": 131072, "vocab_size": 32000},
    "qwen2": {"hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32,
              "num_key_value_heads": 32, "max_position_embeddings": 32768, "vocab_size": 151936},
}  # fmt: skip
_VISION_DEFAULTS: dict[str, Config] = {
    "clip_vision_model": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                          "num_attention_heads": 12, "image_size": 224, "patch_size": 32},
    "siglip_vision_model": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                            "num_attention_heads": 12, "image_size": 224, "patch_size": 16},
}  # fmt: skip

# Above this ratio of sides, LLaVA-OneVision shrinks the detail to so many tiles as its aspect ratio's name says.
_SHRINK_RATIO = 1.1


@dataclass(frozen=True)
class VisionShape:
    """The tower as it is exported: ``layers`` ends with the one whose features are read."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    side_px: int
    patch_px: int
    has_cls: bool

    @property
    def grid(self) -> int:
        return self.side_px // self.patch_px

    @property
    def patches(self) -> int:
        return self.grid**2

    @property
    def tokens(self) -> int:
        """What the tower's layers see of one tile."""
        return self.patches + int(self.has_cls)


@dataclass(frozen=True)
class TextShape:
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    vocab_size: int
    max_positions: int
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def cache_width(self) -> int:
        """Of keys, and of values, per token and layer."""
        return self.kv_heads * self.head_dim


@dataclass(frozen=True)
class ModelShape:
    """``tiles`` and ``visual_tokens`` are the most that one image can have."""

    name: str
    family: str
    vision: VisionShape
    text: TextShape
    projector_bias: bool
    tiles: int
    visual_tokens: int


def shape_of(name: str, config: Config) -> ModelShape:
    """``config`` is a parsed ``config.json``; UserError names what is missing or not known."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise UserError(f"{name}: model_type is {family!r}; a plan can be made for {', '.join(FAMILIES)}.")
    try:
        vision, text = _vision(config), _text(config)
        tiles, visual_tokens = _image(config, vision)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{name}: its config.json is not that of a LLaVA model ({error}); expected one.") from None
    return ModelShape(
        name, str(family), vision, text, bool(config.get("multimodal_projector_bias", True)), tiles, visual_tokens
    )


def _vision(config: Config) -> VisionShape:
    given = config.get("vision_config") or {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                                            "num_attention_heads": 16, "image_size": 336, "patch_size": 14}  # fmt: skip
    kind = str(given.get("model_type", "clip_vision_model"))
    if kind not in _VISION_DEFAULTS:
        raise ValueError(f"vision_config.model_type is {kind!r}, known are {', '.join(_VISION_DEFAULTS)}")
    sizes = _VISION_DEFAULTS[kind] | given
    layer = config.get("vision_feature_layer", -2 if config["model_type"] != "llava_onevision" else -1)
    total = int(sizes["num_hidden_layers"])
    return VisionShape(
        width=int(sizes["hidden_size"]),
        layers=layer if layer >= 0 else total + 1 + layer,
        heads=int(sizes["num_attention_heads"]),
        mlp_width=int(sizes["intermediate_size"]),
        side_px=int(sizes["image_size"]),
        patch_px=int(sizes["patch_size"]),
        has_cls=kind == "clip_vision_model",
    )


def _text(config: Config) -> TextShape:
    given = {key: value for key, value in (config.get("text_config") or {}).items() if value is not None}
    kind = str(given.get("model_type", "llama"))
    if kind not in _TEXT_DEFAULTS:
        raise ValueError(f"text_config.model_type is {kind!r}, known are {', '.join(_TEXT_DEFAULTS)}")
    sizes = _TEXT_DEFAULTS[kind] | given
    heads = int(sizes["num_attention_heads"])
    attention_bias = bool(sizes.get("attention_bias", False))
    return TextShape(
        width=int(sizes["hidden_size"]),
        layers=int(sizes["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(sizes.get("num_key_value_heads", heads)),
        head_dim=int(sizes.get("head_dim", sizes["hidden_size"] // heads)),
        mlp_width=int(sizes["intermediate_size"]),
        vocab_size=int(sizes["vocab_size"]),
        max_positions=int(sizes["max_position_embeddings"]),
        qkv_bias=attention_bias or kind == "qwen2",
        out_bias=attention_bias,
        mlp_bias=bool(sizes.get("mlp_bias", False)),
    )


def _image(config: Config, vision: VisionShape) -> tuple[int, int]:
    """Most tiles and most visual tokens of an image; tokens are those of one that fills its resolution."""
    if config["model_type"] == "llava":
        return 1, vision.patches
    layouts = [(height // vision.side_px, width // vision.side_px) for height, width in config["image_grid_pinpoints"]]
    most = max(rows * columns for rows, columns in layouts)
    shrink_above = re.fullmatch(r"anyres_max_(\d+)", str(config.get("vision_aspect_ratio", "")))
    limit = int(shrink_above.group(1)) if shrink_above and config["model_type"] == "llava_onevision" else None
    return 1 + most, max(_tiled_tokens(vision, rows, columns, limit) for rows, columns in layouts)


def _tiled_tokens(vision: VisionShape, rows: int, columns: int, limit: int | None) -> int:
    """The small view, then the detail with a newline behind each row."""
    height, width = rows * vision.grid, columns * vision.grid
    ratio = math.sqrt(height * width / (limit * vision.patches)) if limit else 1.0
    if ratio > _SHRINK_RATIO:
        height, width = int(height // ratio), int(width // ratio)
    return vision.patches + height * (width + 1)
