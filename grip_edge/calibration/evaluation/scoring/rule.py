"""What a scoring rule is: how an answer is read, and how much of a right answer it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence


class ScoringRule(ABC):
    """``name`` is what ``--scoring`` takes and what stands in reports."""

    name: str

    @abstractmethod
    def normalise(self, answer: str) -> str:
        """The answer as the rule reads it; two answers agree where these are equal."""

    @abstractmethod
    def score(self, answer: str, references: Sequence[str]) -> float:
        """In [0, 1]. UserError where the references are not what this rule compares with."""

    def summary(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float | None]:
        """Metrics of the benchmark beside the mean score, over all its questions; None where one is not defined."""
        return {}
