"""Models by name, and what a checkpoint folder holds. A local folder works everywhere a name does.

Reads only file headers, so it needs neither torch nor safetensors. Not here: the hub (``hub``).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grip_edge.errors import UserError
from grip_edge.hub import HUB_MODELS, download, is_hub_id

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
WEIGHTS_INDEX_NAME = "model.safetensors.index.json"
SCORER_FOLDER = "scorer"

EMBEDDED = {"llava-tiny": Path(__file__).parent / "embedded" / "llava-tiny"}

_HEADER_LIMIT_BYTES = 100_000_000
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor of a checkpoint lies. ``dtype`` is safetensors' name for it, such as ``BF16``."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start_byte: int
    bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def find_model(name: str) -> Path:
    """The checkpoint folder: of an embedded model, a local folder, or a copy of what the hub has under a name or id."""
    folder = EMBEDDED.get(name, Path(name))
    if folder.is_dir():
        return folder
    if name in EMBEDDED:
        raise UserError(f"This installation lacks the embedded model '{name}' ({folder}); install grip-edge again.")
    if name in HUB_MODELS:
        return download(HUB_MODELS[name].id)
    if is_hub_id(name):
        return download(name)
    known = ", ".join((*EMBEDDED, *HUB_MODELS))
    raise UserError(
        f"There is no model '{name}'. Known: {known}; a local folder in Hugging Face format or a hub id works too."
    )


def trained_scorer(folder: Path) -> Path | None:
    """The scorer that comes with a checkpoint, if one does."""
    scorer = folder / SCORER_FOLDER
    return scorer if scorer.is_dir() else None


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor in the checkpoint's safetensors file or shards, by its name there."""
    if (folder / WEIGHTS_NAME).is_file():
        return _header(folder / WEIGHTS_NAME)
    if not (folder / WEIGHTS_INDEX_NAME).is_file():
        if any(folder.glob("pytorch_model*.bin")):
            raise UserError(
                f"'{folder}' holds its weights as pytorch_model*.bin only, which can run code when opened; expected "
                "safetensors: load it with transformers' from_pretrained and write it with save_pretrained."
            )
        raise UserError(f"'{folder}' holds neither {WEIGHTS_NAME} nor {WEIGHTS_INDEX_NAME}; copy the weights there.")
    return _sharded_tensors(folder, folder / WEIGHTS_INDEX_NAME)


def _sharded_tensors(folder: Path, index: Path) -> dict[str, StoredTensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index} has no weight_map; copy the checkpoint again.")
    names = sorted({str(name) for name in weight_map.values()})
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UserError(f"'{folder}' lacks {len(missing)} of its {len(names)} shards ({listed}); copy them there.")
    tensors = {name: tensor for file in names for name, tensor in _header(folder / file).items()}
    for name, file in weight_map.items():
        if name not in tensors or tensors[name].file != folder / str(file):
            raise UserError(f"{index} says that {file} holds '{name}', but it does not; copy the checkpoint again.")
    return tensors


def read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); copy the checkpoint again.") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is no JSON object; copy the checkpoint again.")
    return data


def parameter_count(folder: Path) -> int:
    return sum(tensor.elements for tensor in stored_tensors(folder).values())


def _header(file: Path) -> dict[str, StoredTensor]:
    """The header of a safetensors file: 8 bytes little-endian length, then JSON; the data must follow in full."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= _HEADER_LIMIT_BYTES:
                raise ValueError("no safetensors header")
            entries = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        tensors = {name: _stored_tensor(file, name, entry, 8 + length) for name, entry in entries.items()}
        expected_bytes = 8 + length + max((e["data_offsets"][1] for e in entries.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error}); copy the checkpoint again.") from None
    found_bytes = file.stat().st_size
    if found_bytes != expected_bytes:
        raise UserError(f"{file} has {found_bytes} bytes, its header says {expected_bytes}; copy the checkpoint again.")
    return tensors


def _stored_tensor(file: Path, name: str, entry: dict[str, Any], data_start: int) -> StoredTensor:
    start, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    item_bytes = _ITEM_BYTES.get(entry["dtype"])
    if item_bytes is not None and end - start != item_bytes * math.prod(shape):
        raise ValueError(f"'{name}' has {end - start} bytes, its shape {list(shape)} says otherwise")
    return StoredTensor(file, name, entry["dtype"], shape, data_start + start, end - start)
