"""What TensorRT measured of kernels in earlier builds, kept beside the engines so that later builds are shorter.

Only TensorRT has one: TensorRT-RTX chooses its kernels on the device, when the engine is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def use_timing_cache(config: Any, path: Path) -> None:
    """A cache of another device or version is not taken, and is replaced by ``keep_timing_cache``."""
    known = path.read_bytes() if path.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(known), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def keep_timing_cache(config: Any, path: Path) -> None:
    path.write_bytes(memoryview(config.get_timing_cache().serialize()))
