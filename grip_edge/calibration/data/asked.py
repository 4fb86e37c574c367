"""Questions about images with their reference answers: what training and evaluation are fed with.

A data set is numbered images, each with one or more questions; ``take`` gives some of them, always the same for the
same numbers. Not here: where they come from (``scenes``, ``jsonl``), how an answer is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class AskedQuestion:
    """``answer`` is what training rewards; ``references`` are all accepted answers, with repetitions where several
    people gave the same one, ``answer`` among them. ``group`` is the row of a report that the question counts in.
    """

    text: str
    answer: str
    references: tuple[str, ...]
    group: str


@dataclass(frozen=True)
class AskedImages:
    """B images (8-bit RGB) and R questions; ``image_of[r]`` is the image of question r, ascending."""

    images: tuple[Image.Image, ...]
    questions: tuple[AskedQuestion, ...]
    image_of: tuple[int, ...]


class AskedData(Protocol):
    """``len`` counts images; ``name`` stands in reports."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int]) -> AskedImages: ...
