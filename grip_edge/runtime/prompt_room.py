"""Arrays in which the embeddings of prompts come together, kept from one request to the next.

Their memory has been touched already: the system would give a new array page by page, and take it back. Graphs write
what they make into its place at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# A larger array than this many times what a prompt needs is not kept.
_LARGEST_REUSED = 4


class PromptRoom:
    """Of embeddings ``width`` wide. As many arrays as there were requests at once."""

    def __init__(self, width: int, dtype: DTypeLike) -> None:
        self._width = width
        self._dtype = dtype
        self._idle: list[NDArray[Any]] = []

    def take(self, tokens: int) -> NDArray[Any]:
        """[1,S,D], to be overwritten."""
        size = tokens * self._width
        try:
            flat = self._idle.pop()  # no two threads get the same
        except IndexError:
            flat = None
        if flat is None or not size <= flat.size <= _LARGEST_REUSED * size:
            flat = np.empty(size, self._dtype)
        return flat[:size].reshape(1, tokens, self._width)

    def give_back(self, embeds: NDArray[Any]) -> None:
        """What ``take`` gave: nobody reads it any more."""
        if embeds.base is not None:
            self._idle.append(embeds.base)
