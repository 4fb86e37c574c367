"""The configurations of known checkpoints, as their authors published them: sizes only, so that no download is needed.

Entries are in the form of Hugging Face's ``config.json`` and hold what differs from that form's defaults (``shape``).
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

_CLIP_LARGE_336: Config = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
}  # fmt: skip
_SIGLIP_SO400M: Config = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 26,
    "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
}  # fmt: skip
_VICUNA_7B: Config = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096}
_VICUNA_13B: Config = _VICUNA_7B | {
    "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40,
}  # fmt: skip
_MISTRAL_7B: Config = {"model_type": "mistral", "vocab_size": 32064, "max_position_embeddings": 32768}
_QWEN2_500M: Config = {
    "model_type": "qwen2", "vocab_size": 152000, "hidden_size": 896, "intermediate_size": 4864,
    "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}  # fmt: skip
_QWEN2_7B: Config = {
    "model_type": "qwen2", "vocab_size": 152128, "hidden_size": 3584, "intermediate_size": 18944,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32768,
}  # fmt: skip

_NEXT_RESOLUTIONS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_ONEVISION_RESOLUTIONS = [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)]


def _llava(text: Config) -> Config:
    return {"model_type": "llava", "vision_config": _CLIP_LARGE_336, "text_config": text}


def _next(text: Config) -> Config:
    return _llava(text) | {"model_type": "llava_next", "image_grid_pinpoints": _NEXT_RESOLUTIONS}


def _onevision(text: Config) -> Config:
    return {
        "model_type": "llava_onevision",
        "vision_config": _SIGLIP_SO400M,
        "text_config": text,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "image_grid_pinpoints": _ONEVISION_RESOLUTIONS,
        "vision_aspect_ratio": "anyres_max_9",
    }


# By the short names of ``hub.HUB_MODELS``.
PUBLISHED: dict[str, Config] = {
    "llava-1.5-7b": _llava(_VICUNA_7B),
    "llava-1.5-13b": _llava(_VICUNA_13B),
    "llava-1.6-vicuna-7b": _next(_VICUNA_7B),
    "llava-1.6-vicuna-13b": _next(_VICUNA_13B),
    "llava-1.6-mistral-7b": _next(_MISTRAL_7B),
    "llava-onevision-0.5b": _onevision(_QWEN2_500M),
    "llava-onevision-7b": _onevision(_QWEN2_7B),
}
