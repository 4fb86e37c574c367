"""What a checkpoint's configuration says, in the terms of our own networks; or one line on what is not supported.

Three families (``FAMILIES``), told by ``model_type``, each free to combine these parts:

    tower      CLIP without its CLS token ("default"), or SigLIP with all its tokens ("full")
    decoder    Llama, Mistral, Qwen2; multi-head, grouped or multi-query; rope plain, linear, dynamic, llama3 or yarn
    image      one view (LLaVA-1.5), or tiles (LLaVA-NeXT, LLaVA-OneVision)

A sliding window of attention is supported as far as it changes nothing: ``max_positions`` ends with the window.
Not here: tensors (``checkpoint``), image preprocessing and prompts (``image_settings``, ``prompt``).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
)

from grip_edge.catalog import CONFIG_NAME
from grip_edge.errors import UserError
from grip_edge.export.networks.activations import ACTIVATIONS
from grip_edge.export.networks.clip import ClipConfig
from grip_edge.export.networks.llama import LlamaConfig
from grip_edge.export.networks.rope import Linear, Llama3, Rope, Yarn
from grip_edge.export.networks.siglip import SiglipConfig
from grip_edge.export.networks.tower import TowerConfig
from grip_edge.tiles import TilingSpec


@dataclass(frozen=True)
class Family:
    """transformers' own classes."""

    config: Any
    model: Any


FAMILIES = {
    "llava": Family(LlavaConfig, LlavaForConditionalGeneration),
    "llava_next": Family(LlavaNextConfig, LlavaNextForConditionalGeneration),
    "llava_onevision": Family(LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration),
}

# Kind of tower -> our configuration, and the strategy that gives the language model exactly its patches.
_TOWERS: dict[str, tuple[type[TowerConfig], str]] = {
    "clip_vision_model": (ClipConfig, "default"),
    "siglip_vision_model": (SiglipConfig, "full"),
}
_DECODERS = ("llama", "mistral", "qwen2")
_ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")
_ANYRES_MAX = re.compile(r"anyres_max_(\d+)")


def parse_config(data: dict[str, Any], origin: str) -> Any:
    """transformers' configuration; UserError if the family is not ours or the data are not valid."""
    family = FAMILIES.get(str(data.get("model_type")))
    if family is None:
        known = ", ".join(repr(name) for name in FAMILIES)
        raise UserError(f"{origin}: model_type is {data.get('model_type')!r}; this version exports {known}.")
    try:
        return family.config.from_dict(data)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{origin} is not valid ({reason}); copy the checkpoint again.") from None


def tower_config(config: Any) -> TowerConfig:
    vision = config.vision_config
    _expect("vision_config.model_type", vision.model_type, tuple(_TOWERS))
    kind, strategy = _TOWERS[vision.model_type]
    _expect("vision_config.num_channels", vision.num_channels, (3,))
    _expect("vision_config.hidden_act", vision.hidden_act, tuple(ACTIVATIONS))
    _expect("vision_feature_select_strategy", config.vision_feature_select_strategy, (strategy,))
    total, layer = vision.num_hidden_layers, config.vision_feature_layer
    # Hidden state 0 is the embedding, state i the output of layer i; negative numbers count from the end.
    _expect("vision_feature_layer", layer, tuple(range(-total, total + 1)))
    whole_patches = kind is SiglipConfig or vision.image_size % vision.patch_size == 0
    if not whole_patches or vision.image_size < vision.patch_size:
        raise UserError(
            f"{CONFIG_NAME}: vision_config.image_size is {vision.image_size}; expected a multiple of "
            f"patch_size {vision.patch_size}."
        )
    return kind(
        width=vision.hidden_size,
        layers=layer if layer >= 0 else total + 1 + layer,
        heads=vision.num_attention_heads,
        mlp_width=vision.intermediate_size,
        image_side_px=vision.image_size,
        patch_px=vision.patch_size,
        norm_eps=vision.layer_norm_eps,
        activation=vision.hidden_act,
    )


def decoder_config(config: Any) -> LlamaConfig:
    text = config.text_config
    _expect("text_config.model_type", text.model_type, _DECODERS)
    _expect("text_config.hidden_act", text.hidden_act, ("silu",))
    _expect("projector_hidden_act", config.projector_hidden_act, tuple(ACTIVATIONS))
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if text.num_attention_heads % text.num_key_value_heads:
        raise UserError(
            f"{CONFIG_NAME}: {text.num_attention_heads} heads of text_config do not share "
            f"{text.num_key_value_heads} key-value heads evenly."
        )
    qwen2 = text.model_type == "qwen2"
    bias = getattr(text, "attention_bias", False)
    return LlamaConfig(
        width=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=head_dim,
        mlp_width=text.intermediate_size,
        vocab_size=text.vocab_size,
        max_positions=_max_positions(text),
        norm_eps=text.rms_norm_eps,
        rope=_rope(text),
        qkv_bias=qwen2 or bias,
        output_bias=bias and not qwen2,
        mlp_bias=getattr(text, "mlp_bias", False),
    )


def tiling_spec(config: Any) -> TilingSpec | None:
    """None for families that see an image as one view."""
    if config.model_type == "llava":
        return None
    vision = config.vision_config
    shrink_above = None
    if config.model_type == "llava_onevision":
        aspect = _ANYRES_MAX.fullmatch(config.vision_aspect_ratio)
        if aspect is None:
            raise UserError(
                f"{CONFIG_NAME}: vision_aspect_ratio is {config.vision_aspect_ratio!r}; this version exports "
                "'anyres_max_9' and the like."
            )
        shrink_above = int(aspect[1])
    resolutions = tuple((int(height), int(width)) for height, width in config.image_grid_pinpoints)
    odd = [size for size in resolutions if min(size) < 1 or size[0] % vision.image_size or size[1] % vision.image_size]
    if odd or not resolutions:
        raise UserError(
            f"{CONFIG_NAME}: image_grid_pinpoints holds {odd[0] if odd else 'nothing'}; expected multiples of "
            f"the tile, {vision.image_size} px."
        )
    return TilingSpec(resolutions, vision.image_size, vision.image_size // vision.patch_size, shrink_above)


def _max_positions(text: Any) -> int:
    """Behind the window, attention would have to forget; up to it, it is plain causal attention."""
    positions: int = text.max_position_embeddings
    window = getattr(text, "sliding_window", None)
    # Mistral's layers all have the window; Qwen2 names the layers that do.
    slides = window is not None and "sliding_attention" in getattr(text, "layer_types", ["sliding_attention"])
    return min(positions, int(window)) if window is not None and slides else positions


def _rope(text: Any) -> Rope:
    parameters: dict[str, Any] = text.rope_parameters
    _expect("text_config.rope_parameters.rope_type", parameters.get("rope_type"), _ROPE_TYPES)
    _expect("text_config.rope_parameters.partial_rotary_factor", parameters.get("partial_rotary_factor", 1.0), (1.0,))
    kind, theta = parameters["rope_type"], float(parameters["rope_theta"])
    try:
        if kind == "linear":
            return Rope(theta, Linear(float(parameters["factor"])))
        if kind == "llama3":
            low, high = float(parameters["low_freq_factor"]), float(parameters["high_freq_factor"])
            original = int(parameters["original_max_position_embeddings"])
            return Rope(theta, Llama3(float(parameters["factor"]), low, high, original))
        return Rope(theta, _yarn(parameters, text.max_position_embeddings) if kind == "yarn" else None)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{CONFIG_NAME}: text_config.rope_parameters of type '{kind}' lack {error}; copy the checkpoint again."
        ) from None


def _yarn(parameters: dict[str, Any], positions: int) -> Yarn:
    """Defaults as in transformers."""
    original = int(parameters.get("original_max_position_embeddings") or positions)
    factor = float(parameters.get("factor") or positions / original)
    amplitude, scale, all_scale = (parameters.get(name) for name in ("attention_factor", "mscale", "mscale_all_dim"))
    if amplitude is None:
        both = scale and all_scale
        amplitude = _magnitude(factor, scale) / _magnitude(factor, all_scale) if both else _magnitude(factor, 1.0)
    return Yarn(
        factor=factor,
        original_positions=original,
        amplitude=float(amplitude),
        beta_fast=float(parameters.get("beta_fast") or 32),
        beta_slow=float(parameters.get("beta_slow") or 1),
        truncate=bool(parameters.get("truncate", True)),
    )


def _magnitude(factor: float, scale: Any) -> float:
    """By what YaRN raises cosine and sine (2309.00071, section 3.4)."""
    return 1.0 if factor <= 1 else 0.1 * float(scale) * math.log(factor) + 1.0


def _expect(field: str, found: object, allowed: tuple[object, ...]) -> None:
    if found not in allowed:
        listed = ", ".join(repr(value) for value in allowed[:4]) + (", ..." if len(allowed) > 4 else "")
        raise UserError(f"{CONFIG_NAME}: {field} is {found!r}; this version exports {listed}.")
