"""What a model is asked when its precision is chosen: images, questions and right answers, as the graphs want them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Positions of an answer that are compared; what comes later depends on the same layers.
MOST_ANSWER_TOKENS = 8


@dataclass(frozen=True)
class AskedPrompt:
    """Token ids before and behind the image's place, of the question alone, and of the right answer with the stop
    token. ``image`` counts in ``QuestionSet.pixels``.
    """

    image: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    question: tuple[int, ...]
    answer: tuple[int, ...]
    budget_tokens: int

    @property
    def compared(self) -> tuple[int, ...]:
        """The tokens of the answer that are compared."""
        return self.answer[:MOST_ANSWER_TOKENS]


@dataclass(frozen=True)
class QuestionSet:
    """``pixels``: preprocessed images, [1,3,H,W] each."""

    pixels: tuple[NDArray[np.float32], ...]
    prompts: tuple[AskedPrompt, ...]


@dataclass(frozen=True)
class Positions:
    """For each of the A compared positions of all answers: logits [A,V], the right token [A], and its question [A]."""

    logits: NDArray[np.float32]
    right: NDArray[np.int64]
    question: NDArray[np.int64]


def positions(prompts: Sequence[AskedPrompt], logits: Sequence[NDArray[Any]]) -> Positions:
    """``logits`` [V] in the order of the questions and their compared tokens."""
    right = [token for prompt in prompts for token in prompt.compared]
    owner = [number for number, prompt in enumerate(prompts) for _ in prompt.compared]
    return Positions(np.stack(logits).astype(np.float32), np.array(right), np.array(owner))
