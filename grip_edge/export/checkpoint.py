"""A LLaVA checkpoint in Hugging Face format: what it is, and its tensors one at a time.

What can be wrong with its files is found here, before any work, in one line each.
Not here: what its configuration means (``architecture``), prompt and image preprocessing (``prompt``,
``image_settings``), the tensors that the graphs need (``graphs``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grip_edge.catalog import CONFIG_NAME, StoredTensor, read_json, stored_tensors
from grip_edge.errors import UserError
from grip_edge.export.architecture import FAMILIES, decoder_config, parse_config, tiling_spec, tower_config
from grip_edge.export.networks.llama import LlamaConfig
from grip_edge.export.networks.tower import TowerConfig
from grip_edge.export.prequantised import AnyTensor, PackedMatrix, with_packed
from grip_edge.export.unpacking import restore
from grip_edge.export.weights import first_not_finite
from grip_edge.manifest import ModelSpec, TextSpec, VisionSpec
from grip_edge.tiles import TilingSpec

# Stored types whose numbers are the weights themselves.
FLOAT_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# And those of packed matrices (``prequantised``).
_DTYPES = {**FLOAT_DTYPES, "I32": torch.int32}

# Checkpoints of different ages name the same tensor differently; these bring all to one form.
_RENAMES = (
    (re.compile(r"^model\."), ""),
    (re.compile(r"^language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^language_model\.model\."), "language_model."),
    (re.compile(r"^vision_tower\.vision_model\."), "vision_tower."),
)


@dataclass(frozen=True)
class Checkpoint:
    """``tensors`` is keyed by canonical name. ``config`` is transformers' own. ``tiling`` is None where an image is
    one view.
    """

    folder: Path
    config: Any
    vision: TowerConfig
    text: LlamaConfig
    tensors: dict[str, AnyTensor]
    tiling: TilingSpec | None = None

    @property
    def model_class(self) -> Any:
        """transformers' own."""
        return FAMILIES[self.config.model_type].model

    @property
    def spec(self) -> ModelSpec:
        vision, text = self.vision, self.text
        return ModelSpec(
            name=self.folder.resolve().name,
            architecture=self.model_class.__name__,
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
        """One tensor by canonical name: as it is stored, or restored from its packed parts."""
        stored = self.tensors[name]
        return restore(stored, self.read_stored) if isinstance(stored, PackedMatrix) else self.read_stored(stored)

    def read_stored(self, stored: StoredTensor) -> Tensor:
        """Nothing else of its file is read. UserError on NaN."""
        data = np.fromfile(stored.file, np.uint8, count=stored.bytes, offset=stored.start_byte)
        if data.size != stored.bytes:
            raise UserError(f"{stored.file} ended within '{stored.name}'; the file changed while it was read.")
        tensor = torch.from_numpy(data).view(_DTYPES[stored.dtype]).reshape(stored.shape)
        place = first_not_finite(tensor) if tensor.is_floating_point() else None
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
        parts = stored.parts if isinstance(stored, PackedMatrix) else (stored,)
        return ", ".join(_origin(part) for part in parts)

    @property
    def is_packed(self) -> bool:
        """Some matrices came in 4 bits."""
        return any(isinstance(tensor, PackedMatrix) for tensor in self.tensors.values())


def _origin(stored: StoredTensor) -> str:
    state = stored.file.stat()
    return f"{stored.file.name}@{state.st_size}@{state.st_mtime_ns}: {stored.name}"


def open_checkpoint(folder: Path) -> Checkpoint:
    """Reads configuration and headers; UserError names what is missing or not supported."""
    if not (folder / CONFIG_NAME).is_file():
        raise UserError(f"'{folder}' holds no {CONFIG_NAME}; expected a LLaVA checkpoint in Hugging Face format.")
    data = read_json(folder / CONFIG_NAME)
    config = parse_config(data, str(folder / CONFIG_NAME))
    vision, text, tiling = tower_config(config), decoder_config(config), tiling_spec(config)
    tensors = {canonical_name(name): tensor for name, tensor in stored_tensors(folder).items()}
    return Checkpoint(folder, config, vision, text, with_packed(tensors, data.get("quantization_config")), tiling)


def canonical_name(stored_name: str) -> str:
    for pattern, replacement in _RENAMES:
        stored_name = pattern.sub(replacement, stored_name)
    return stored_name
