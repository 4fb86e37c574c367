"""Memory that loading a graph leaves behind: large blocks go back to the system at once, where the C library is glibc.

ONNX Runtime rearranges quantised weights when it loads them, one copy after the other. glibc keeps freed blocks of up
to 32 MB for later, between others that are still in use, and a loaded model then holds nearly twice its weights. So
while a graph is loaded every large block is a mapping of its own. Elsewhere (musl, macOS, Windows) nothing is done.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_M_MMAP_THRESHOLD = -3
_LOADING_BYTES = 1 << 20
# What glibc itself goes up to: activations of a request are used again, and not mapped anew for each operator.
_RUNNING_BYTES = 32 << 20


@contextmanager
def large_blocks_returned() -> Iterator[None]:
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, _LOADING_BYTES)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _RUNNING_BYTES)
