"""A LLaVA checkpoint in Hugging Face format: what it is, and its tensors one at a time.

Everything that can be wrong with its configuration is found here, before any work, in one line each.
Not here: prompt and image preprocessing (``prompt``), the tensors that the graphs need (``graphs``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import LlavaConfig

from grip_edge.catalog import CONFIG_NAME, StoredTensor, read_json, stored_tensors
from grip_edge.errors import UserError
from grip_edge.export.networks.activations import ACTIVATIONS
from grip_edge.export.networks.clip import ClipConfig
from grip_edge.export.networks.llama import LlamaConfig
from grip_edge.export.weights import first_not_finite
from grip_edge.manifest import ModelSpec, TextSpec, VisionSpec

ARCHITECTURE = "LlavaForConditionalGeneration"

# Stored types whose numbers are the weights themselves; quantised checkpoints need scales that are not read here.
FLOAT_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

# Checkpoints of different ages name the same tensor differently; these bring all to one form.
_RENAMES = (
    (re.compile(r"^model\."), ""),
    (re.compile(r"^language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^language_model\.model\."), "language_model."),
    (re.compile(r"^vision_tower\.vision_model\."), "vision_tower."),
)


@dataclass(frozen=True)
class Checkpoint:
    """``tensors`` is keyed by canonical name. ``config`` is transformers' own."""

    folder: Path
    config: LlavaConfig
    vision: ClipConfig
    text: LlamaConfig
    tensors: dict[str, StoredTensor]

    @property
    def spec(self) -> ModelSpec:
        vision, text = self.vision, self.text
        return ModelSpec(
            name=self.folder.resolve().name,
            architecture=ARCHITECTURE,
            vision=VisionSpec(
                width=vision.width,
                layers=vision.layers,
                image_side_px=vision.image_side_px,
                patch_px=vision.patch_px,
                grid=(vision.grid, vision.grid),
            ),
            text=TextSpec(
                width=text.width,
                layers=text.layers,
                heads=text.heads,
                kv_heads=text.kv_heads,
                head_dim=text.head_dim,
                vocab_size=text.vocab_size,
                max_positions=text.max_positions,
            ),
        )

    def read(self, name: str) -> Tensor:
        """One tensor as it is stored, by canonical name; nothing else of its file is read. UserError on NaN."""
        stored = self.tensors[name]
        data = np.fromfile(stored.file, np.uint8, count=stored.bytes, offset=stored.start_byte)
        if data.size != stored.bytes:
            raise UserError(f"{stored.file} ended within '{stored.name}'; the file changed while it was read.")
        tensor = torch.from_numpy(data).view(FLOAT_DTYPES[stored.dtype]).reshape(stored.shape)
        place = first_not_finite(tensor)
        if place is not None:
            value = tensor.flatten()[place].item()
            raise UserError(
                f"{stored.file}: '{stored.name}' holds {value} (element {place}); expected finite weights: the file is "
                "damaged or training diverged. Copy it again."
            )
        return tensor

    def load(self, name: str) -> Tensor:
        """As ``read``, in fp32."""
        return self.read(name).float()

    def recipe(self, name: str) -> str:
        """Tells one content of a tensor from another: its place, and size and time of its file."""
        stored = self.tensors[name]
        state = stored.file.stat()
        return f"{stored.file.name}@{state.st_size}@{state.st_mtime_ns}: {stored.name}"


def open_checkpoint(folder: Path) -> Checkpoint:
    """Reads configuration and headers; UserError names what is missing or not supported."""
    if not (folder / CONFIG_NAME).is_file():
        raise UserError(f"'{folder}' holds no {CONFIG_NAME}; expected a LLaVA checkpoint in Hugging Face format.")
    data = read_json(folder / CONFIG_NAME)
    if data.get("model_type") != "llava":
        found = data.get("model_type")
        raise UserError(f"{folder / CONFIG_NAME}: model_type is {found!r}; this version exports 'llava' (LLaVA-1.5).")
    try:
        config = LlavaConfig.from_dict(data)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / CONFIG_NAME} is not valid ({reason}); copy the checkpoint again.") from None
    tensors = {canonical_name(name): tensor for name, tensor in stored_tensors(folder).items()}
    return Checkpoint(folder, config, _vision_config(config), _text_config(config), tensors)


def canonical_name(stored_name: str) -> str:
    for pattern, replacement in _RENAMES:
        stored_name = pattern.sub(replacement, stored_name)
    return stored_name


def _vision_config(config: LlavaConfig) -> ClipConfig:
    vision: Any = config.vision_config
    _expect("vision_config.model_type", vision.model_type, ("clip_vision_model",))
    _expect("vision_config.num_channels", vision.num_channels, (3,))
    _expect("vision_config.hidden_act", vision.hidden_act, tuple(ACTIVATIONS))
    _expect("vision_feature_select_strategy", config.vision_feature_select_strategy, ("default",))
    total: int = vision.num_hidden_layers
    layer: Any = config.vision_feature_layer
    # Hidden state 0 is the embedding, state i the output of layer i; negative numbers count from the end.
    _expect("vision_feature_layer", layer, tuple(range(-total, total + 1)))
    _expect("vision_config.image_size", vision.image_size, tuple(range(vision.patch_size, 4096, vision.patch_size)))
    return ClipConfig(
        width=vision.hidden_size,
        layers=layer if layer >= 0 else total + 1 + layer,
        heads=vision.num_attention_heads,
        mlp_width=vision.intermediate_size,
        image_side_px=vision.image_size,
        patch_px=vision.patch_size,
        norm_eps=vision.layer_norm_eps,
        activation=vision.hidden_act,
    )


def _text_config(config: LlavaConfig) -> LlamaConfig:
    text: Any = config.text_config
    _expect("text_config.model_type", text.model_type, ("llama",))
    _expect("text_config.hidden_act", text.hidden_act, ("silu",))
    _expect("text_config.rope_parameters.rope_type", text.rope_parameters.get("rope_type"), ("default",))
    _expect("projector_hidden_act", config.projector_hidden_act, tuple(ACTIVATIONS))
    return LlamaConfig(
        width=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        mlp_width=text.intermediate_size,
        vocab_size=text.vocab_size,
        max_positions=text.max_position_embeddings,
        norm_eps=text.rms_norm_eps,
        rope_theta=text.rope_parameters["rope_theta"],
        attention_bias=text.attention_bias,
        mlp_bias=text.mlp_bias,
    )


def _expect(field: str, found: object, allowed: tuple[object, ...]) -> None:
    if found not in allowed:
        listed = ", ".join(repr(value) for value in allowed[:4]) + (", ..." if len(allowed) > 4 else "")
        raise UserError(f"{CONFIG_NAME}: {field} is {found!r}; this version exports {listed}.")
