"""One arena for the activations of all sessions of this process on CPUs, in which the stages of a request follow each
other, instead of one for each session that keeps what its largest run needed.

ONNX Runtime's arenas give a piece of memory as a whole to whatever fits in, up to 128 MB too large; here pieces are
cut. The arena stays when its last session ends, and serves the next one.
"""

from __future__ import annotations

from functools import cache

import onnxruntime as ort

_SETTINGS = {
    "arena_extend_strategy": 0,  # each further piece is twice as large
    "initial_chunk_size_bytes": 8 << 20,
    "max_dead_bytes_per_chunk": 4096,
}


def use_shared_arena(options: ort.SessionOptions) -> None:
    _register()
    options.add_session_config_entry("session.use_env_allocators", "1")


@cache
def _register() -> None:
    """Once in a process."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(_SETTINGS))
