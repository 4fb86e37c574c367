"""Exact match: the rendered scenes' own rule, and GQA's.

exact    equal to any reference, but for case, surrounding space and a final full stop
gqa      LLaVA's scripts/convert_gqa_for_eval.py (final full stops dropped, lower case), then GQA's eval.py: 1 where
         the answer equals the one reference, else 0. Not here: GQA's consistency, validity, plausibility, grounding
"""

from __future__ import annotations

from collections.abc import Sequence

from grip_edge.calibration.evaluation.scoring.rule import ScoringRule
from grip_edge.calibration.scenes import exact_match


class ExactMatch(ScoringRule):
    name = "exact"

    def normalise(self, answer: str) -> str:
        return answer.strip().rstrip(".").strip().casefold()

    def score(self, answer: str, references: Sequence[str]) -> float:
        return float(any(exact_match(answer, reference) for reference in references))


class GqaAccuracy(ScoringRule):
    name = "gqa"

    def normalise(self, answer: str) -> str:
        return answer.rstrip(".").lower()

    def score(self, answer: str, references: Sequence[str]) -> float:
        return float(self.normalise(answer) in references)
