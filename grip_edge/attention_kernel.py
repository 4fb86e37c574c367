"""Which of its two algorithms ONNX Runtime's GroupQueryAttention uses on CPUs: an environment variable decides, read
when a session is made.

Whole matrices of scores take half the time of tiles, up to prompts of 2,000 tokens (docs/log.md), and the runtime gives
the decoder a few hundred tokens at once, so that they stay small. Whoever has set the variable has decided already.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_DISABLE_TILES = "ORT_GQA_DISABLE_FLASH_ATTENTION"


@contextmanager
def whole_score_matrices() -> Iterator[None]:
    """For sessions made inside."""
    if _DISABLE_TILES in os.environ:
        yield
        return
    os.environ[_DISABLE_TILES] = "1"
    try:
        yield
    finally:
        del os.environ[_DISABLE_TILES]
