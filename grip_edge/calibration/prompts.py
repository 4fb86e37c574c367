"""Questions with their reference answers as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prompts:
    """R questions, tokenised. ``after`` holds the ids behind the image up to the answer; ``question_ids`` [R,T] are
    the question's own tokens, ``question_mask`` [R,T] False on padding; ``answers`` the reference's ids with the
    stop token (empty where none was given).
    """

    after: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    question_ids: Tensor
    question_mask: Tensor

    def __len__(self) -> int:
        return len(self.after)

    def rows(self, index: Sequence[int]) -> Prompts:
        rows = list(index)
        return Prompts(
            tuple(self.after[i] for i in rows),
            tuple(self.answers[i] for i in rows),
            self.question_ids[rows],
            self.question_mask[rows],
        )
