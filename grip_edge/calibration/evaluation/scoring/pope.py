"""POPE (2305.10355): is the object there? The first sentence is read as no where it holds "no", "No" or "not".

Everything else is a yes, as in RUCAIBox/POPE and LLaVA's llava/eval/eval_pope.py. F1, precision and recall are those
of yes. Published tables average POPE's three categories: give them as "category" in the data.
"""

from __future__ import annotations

from collections.abc import Sequence

from grip_edge.calibration.evaluation.scoring.rule import ScoringRule
from grip_edge.errors import UserError

_NEGATIONS = frozenset(("No", "no", "not"))


class PopeAccuracy(ScoringRule):
    name = "pope"

    def normalise(self, answer: str) -> str:
        words = answer.partition(".")[0].replace(",", "").split(" ")
        return "yes" if _NEGATIONS.isdisjoint(words) else "no"

    def score(self, answer: str, references: Sequence[str]) -> float:
        return float(self.normalise(answer) == _label(references))

    def summary(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float | None]:
        said = [self.normalise(answer) == "yes" for answer in answers]
        true = [_label(reference) == "yes" for reference in references]
        hits = sum(one and other for one, other in zip(said, true, strict=True))
        precision, recall = _share(hits, sum(said)), _share(hits, sum(true))
        return {
            "precision": precision,
            "recall": recall,
            "f1": _share(2 * hits, sum(said) + sum(true)),
            "yes_rate": _share(sum(said), len(said)),
        }


def _label(references: Sequence[str]) -> str:
    label = references[0]
    if label not in ("yes", "no"):
        raise UserError(f"Scoring 'pope' expects the answers 'yes' and 'no'; this data has '{label}'.")
    return label


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
