"""Which of its two algorithms ONNX Runtime's GroupQueryAttention uses on CPUs: an environment variable decides, read
when a session is made.

Whole matrices of scores take half the time of tiles for 600 tokens, and as long for 3,000 (docs/log.md); but they need
4 bytes x heads x queries x keys, where tiles need next to nothing. Whoever has set the variable has decided already.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_DISABLE_TILES = "ORT_GQA_DISABLE_FLASH_ATTENTION"
_MOST_TOKENS = 2048


@contextmanager
def attention_kernel(longest_prompt: int) -> Iterator[None]:
    """For sessions made inside: whole matrices unless a prompt may have too many tokens for them."""
    if _DISABLE_TILES in os.environ or longest_prompt > _MOST_TOKENS:
        yield
        return
    os.environ[_DISABLE_TILES] = "1"
    try:
        yield
    finally:
        del os.environ[_DISABLE_TILES]
