"""From answers to the rows of a report: accuracy by group, agreement, paired differences.

Everything is computed from records alone, so the same answers can be scored again by another rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grip_edge.calibration.data import AskedQuestion
from grip_edge.calibration.evaluation.cases import FULL_BUDGET, UNPRUNED, Case
from grip_edge.calibration.evaluation.intervals import Bootstrap
from grip_edge.calibration.evaluation.records import ImageRecord
from grip_edge.calibration.evaluation.report import AccuracyRow, AgreementRow, DifferenceRow
from grip_edge.calibration.evaluation.scoring import ScoringRule

EVERYTHING = "all"


@dataclass(frozen=True)
class Entry:
    """One line of the accuracy table before grouping: the cases of all training runs of a policy at one budget."""

    policy: str
    budget: str
    kept_tokens: int
    cases: tuple[Case, ...]


class ScoredAnswers:
    """All answers of an evaluation, scored. Q questions; ``image`` [Q] is the image of each."""

    def __init__(self, cases: Sequence[Case], records: Sequence[ImageRecord], rule: ScoringRule) -> None:
        self.questions: list[AskedQuestion] = [question for record in records for question in record.questions]
        self.image = np.array([record.image for record in records for _ in record.questions], np.int64)
        self.answers = {
            case: [answer for record in records for answer in record.answers[row]] for row, case in enumerate(cases)
        }
        self._rule = rule
        self._scores = {case: self._scored(answers) for case, answers in self.answers.items()}
        self._read = {case: [rule.normalise(answer) for answer in answers] for case, answers in self.answers.items()}

    @property
    def entries(self) -> list[Entry]:
        """In the order in which the cases were given."""
        grouped: dict[tuple[str, str, int], list[Case]] = {}
        for case in self.answers:
            grouped.setdefault((case.policy, case.budget, case.kept_tokens), []).append(case)
        return [Entry(*key, tuple(cases)) for key, cases in grouped.items()]

    def scores(self, cases: Iterable[Case]) -> NDArray[np.float64]:
        """[runs,Q]."""
        return np.stack([self._scores[case] for case in cases])

    def same(self, cases: Iterable[Case], other: Case) -> NDArray[np.float64]:
        """[runs,Q]: 1 where the answer is read as that of ``other`` is."""
        wanted = self._read[other]
        rows = [[a == b for a, b in zip(self._read[case], wanted, strict=True)] for case in cases]
        return np.array(rows, np.float64)

    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """Everything, then each group by name, where there are several."""
        names = np.array([question.group for question in self.questions])
        found = {EVERYTHING: np.ones(len(names), dtype=bool)}
        distinct = sorted(set(names.tolist()) - {EVERYTHING})
        return found | {name: names == name for name in distinct} if len(distinct) > 1 else found

    def unpruned(self, policy: str) -> Case:
        """The unpruned model; where only bundles were asked, the bundle itself with all tokens."""
        return next(case for case in self.answers if case.policy in (UNPRUNED, policy) and case.budget == FULL_BUDGET)

    def metrics(self, case: Case, asked: NDArray[np.bool_]) -> dict[str, float | None]:
        rows = np.flatnonzero(asked)
        return self._rule.summary([self.answers[case][r] for r in rows], [self.questions[r].references for r in rows])

    def _scored(self, answers: Sequence[str]) -> NDArray[np.float64]:
        rule = self._rule
        return np.array([rule.score(a, q.references) for a, q in zip(answers, self.questions, strict=True)])


def accuracy_rows(scored: ScoredAnswers, bootstrap: Bootstrap) -> tuple[AccuracyRow, ...]:
    return tuple(
        _accuracy_row(scored, bootstrap, entry, group, asked)
        for entry in scored.entries
        for group, asked in scored.groups().items()
    )


def _accuracy_row(
    scored: ScoredAnswers, bootstrap: Bootstrap, entry: Entry, group: str, asked: NDArray[np.bool_]
) -> AccuracyRow:
    scores = scored.scores(entry.cases)
    accuracy = bootstrap.interval(scores, asked)
    agreement = bootstrap.interval(scored.same(entry.cases, scored.unpruned(entry.policy)), asked)
    runs = scores[:, asked].mean(axis=1)
    return AccuracyRow(
        policy=entry.policy,
        budget=entry.budget,
        kept_tokens=entry.kept_tokens,
        group=group,
        questions=int(asked.sum()),
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        runs=tuple(runs.tolist()),
        run_std=float(runs.std(ddof=1)) if len(runs) > 1 else None,
        agreement=agreement.value,
        agreement_low=agreement.low,
        agreement_high=agreement.high,
        metrics=scored.metrics(entry.cases[0], asked),
    )


def difference_rows(scored: ScoredAnswers, bootstrap: Bootstrap, against: str | None) -> tuple[DifferenceRow, ...]:
    """Every policy minus its unpruned model, and ``against`` minus every other policy at the same budget."""
    asked = scored.groups()[EVERYTHING]
    rows = []
    for entry in scored.entries:
        if entry.budget != FULL_BUDGET:
            base = scored.unpruned(entry.policy)
            found = bootstrap.difference(scored.scores(entry.cases), scored.scores([base]), asked)
            name = base.policy if base.policy != entry.policy else f"{base.policy} at {FULL_BUDGET}"  # of a bundle
            rows.append(DifferenceRow(entry.policy, name, entry.budget, found.value, found.low, found.high))
    chosen = {entry.kept_tokens: entry for entry in scored.entries if entry.policy == against}
    for entry in scored.entries:
        best = chosen.get(entry.kept_tokens)
        if best is not None and entry.policy != against:
            found = bootstrap.difference(scored.scores(best.cases), scored.scores(entry.cases), asked)
            rows.append(DifferenceRow(best.policy, entry.policy, entry.budget, found.value, found.low, found.high))
    return tuple(rows)


def agreement_rows(scored: ScoredAnswers, bootstrap: Bootstrap, bundles: dict[str, str]) -> tuple[AgreementRow, ...]:
    """``bundles`` maps the name that a bundle takes part under to the policy that is inside it."""
    asked = scored.groups()[EVERYTHING]
    rows = []
    for case in scored.answers:
        policy = UNPRUNED if case.budget == FULL_BUDGET else bundles.get(case.policy)
        twin = Case(policy or "", case.budget, case.kept_tokens)
        if case.policy in bundles and twin in scored.answers:
            found = bootstrap.interval(scored.same([case], twin), asked)
            rows.append(AgreementRow(case.policy, twin.policy, case.budget, found.value, found.low, found.high))
    return tuple(rows)
