"""Models by name, and what a checkpoint folder holds. A local folder works everywhere a name does.

Reads only file headers, so it needs neither torch nor safetensors.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grip_edge.errors import UserError

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
WEIGHTS_INDEX_NAME = "model.safetensors.index.json"
SCORER_FOLDER = "scorer"

EMBEDDED = {"llava-tiny": Path(__file__).parent / "embedded" / "llava-tiny"}

_HEADER_LIMIT_BYTES = 100_000_000


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor of a checkpoint lies. ``dtype`` is safetensors' name for it, such as ``BF16``."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]


def find_model(name: str) -> Path:
    """The checkpoint folder of a known name, or the local folder itself."""
    folder = EMBEDDED.get(name, Path(name))
    if folder.is_dir():
        return folder
    if name in EMBEDDED:
        raise UserError(f"This installation lacks the embedded model '{name}' ({folder}); install grip-edge again.")
    known = ", ".join(EMBEDDED)
    raise UserError(f"There is no model '{name}'. Known: {known}; a local folder in Hugging Face format works too.")


def trained_scorer(folder: Path) -> Path | None:
    """The scorer that comes with a checkpoint, if one does."""
    scorer = folder / SCORER_FOLDER
    return scorer if scorer.is_dir() else None


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor in the checkpoint's safetensors file or shards, by its name there."""
    if (folder / WEIGHTS_NAME).is_file():
        files = [folder / WEIGHTS_NAME]
    elif (folder / WEIGHTS_INDEX_NAME).is_file():
        weight_map = read_json(folder / WEIGHTS_INDEX_NAME).get("weight_map")
        if not isinstance(weight_map, dict):
            raise UserError(f"{folder / WEIGHTS_INDEX_NAME} has no weight_map; copy the checkpoint again.")
        files = [folder / str(name) for name in sorted(set(weight_map.values()))]
    else:
        raise UserError(f"'{folder}' holds neither {WEIGHTS_NAME} nor {WEIGHTS_INDEX_NAME}; copy the weights there.")
    return {name: tensor for file in files for name, tensor in _header(file).items()}


def read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); copy the checkpoint again.") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is no JSON object; copy the checkpoint again.")
    return data


def parameter_count(folder: Path) -> int:
    return sum(math.prod(tensor.shape) for tensor in stored_tensors(folder).values())


def _header(file: Path) -> dict[str, StoredTensor]:
    """The header of a safetensors file: 8 bytes little-endian length, then JSON; the data must follow in full."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= _HEADER_LIMIT_BYTES:
                raise ValueError("no safetensors header")
            entries = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        tensors = {name: StoredTensor(file, name, e["dtype"], tuple(e["shape"])) for name, e in entries.items()}
        expected_bytes = 8 + length + max((e["data_offsets"][1] for e in entries.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error}); copy the checkpoint again.") from None
    found_bytes = file.stat().st_size
    if found_bytes != expected_bytes:
        raise UserError(f"{file} has {found_bytes} bytes, its header says {expected_bytes}; copy the checkpoint again.")
    return tensors
