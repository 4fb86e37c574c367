"""Tensors on disk by key: exact, bounded, safe against kills and against several processes.

A tensor is written once, under a temporary name, and renamed. When the folder is full nothing more is written: with
images drawn at random, what is there is as good as what would replace it.
"""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

_NAME = "tensor"


class TensorStore:
    """``limit_bytes`` is what this process may make the folder grow to."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._free_bytes = limit_bytes - sum(file.stat().st_size for file in folder.glob("*/*.safetensors"))

    def get(self, key: str) -> Tensor | None:
        """The tensor as it was put, bit for bit; None where it is not there or the file is damaged."""
        try:
            return load_file(self._path(key))[_NAME]
        except (OSError, SafetensorError, KeyError):
            return None

    def put(self, key: str, tensor: Tensor) -> None:
        size_bytes = tensor.numel() * tensor.element_size()
        if size_bytes > self._free_bytes:
            return
        path = self._path(key)
        partial = path.with_suffix(f".partial-{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({_NAME: tensor.detach().cpu().contiguous()}, partial)
            os.replace(partial, path)
        except OSError:  # a full disk costs speed, not the run
            partial.unlink(missing_ok=True)
            self._free_bytes = 0
            return
        self._free_bytes -= path.stat().st_size

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.safetensors"
