"""ScienceQA accuracy: the letter of the chosen option, as LLaVA's llava/eval/eval_science_qa.py reads it.

In this order: the answer is a letter A to E; it begins with one, a full stop and a space; it says "The answer is X".
What names no option is wrong. Lines are joined by ". " first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from grip_edge.calibration.evaluation.scoring.rule import ScoringRule
from grip_edge.errors import UserError

_OPTIONS = ("A", "B", "C", "D", "E")
_FIRST = re.compile(r"([A-E])\. ")
_SAID = re.compile(r"The answer is ([A-E])")


class ScienceQaAccuracy(ScoringRule):
    name = "scienceqa"

    def normalise(self, answer: str) -> str:
        """The letter, or the empty string."""
        text = answer.replace("\n", ". ")
        if text.strip() in _OPTIONS:
            return text.strip()
        # "The answer is C." goes before "The answer is B of the two", wherever they stand
        found = _FIRST.match(text) or re.search(_SAID.pattern + r"\.", text) or _SAID.search(text)
        return found[1] if found else ""

    def score(self, answer: str, references: Sequence[str]) -> float:
        if references[0] not in _OPTIONS:
            raise UserError(
                f"Scoring 'scienceqa' expects the letter of an option, A to E, as the answer; this data has "
                f"'{references[0]}'."
            )
        return float(self.normalise(answer) == references[0])
