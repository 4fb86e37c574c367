"""How answers are scored: one rule per benchmark, each with the official code that it follows."""

from __future__ import annotations

from grip_edge.calibration.evaluation.scoring.exact import ExactMatch, GqaAccuracy
from grip_edge.calibration.evaluation.scoring.pope import PopeAccuracy
from grip_edge.calibration.evaluation.scoring.rule import ScoringRule
from grip_edge.calibration.evaluation.scoring.scienceqa import ScienceQaAccuracy
from grip_edge.calibration.evaluation.scoring.vqa import TextVqaAccuracy, VqaAccuracy

__all__ = ["RULES", "ScoringRule"]

RULES: dict[str, ScoringRule] = {
    rule.name: rule
    for rule in (
        ExactMatch(),
        VqaAccuracy(),
        TextVqaAccuracy(),
        PopeAccuracy(),
        ScienceQaAccuracy(),
        GqaAccuracy(),
    )
}
