"""What a training stage reports while it runs: a JSON line per record, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Journal:
    """``<folder>/<name>.jsonl``. Continuing at ``first_step`` drops what a killed run wrote after its checkpoint."""

    def __init__(self, folder: Path, name: str, first_step: int) -> None:
        path = folder / f"{name}.jsonl"
        if path.exists():
            _drop_from(path, first_step)
        self._file = path.open("a", encoding="utf-8")
        self._board = _tensorboard(folder / "tensorboard" / name, first_step)

    def write(self, record: Mapping[str, float]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._board is not None:
            for key, value in record.items():
                if key != "step":
                    self._board.add_scalar(key, value, record["step"])

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _drop_from(path: Path, step: int) -> None:
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the line that was being written when the run was killed
            continue
        if record["step"] < step:
            kept.append(line + "\n")
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    os.replace(partial, path)


def _tensorboard(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=first_step)
