"""The evaluation loop: every image of the data, a batch at a time, through every answerer, onto disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from grip_edge.calibration.data import AskedData, AskedImages
from grip_edge.calibration.evaluation.cases import Case
from grip_edge.calibration.evaluation.records import ImageRecord, RecordFile
from grip_edge.calibration.evaluation.scoring import ScoringRule


class Answerer(Protocol):
    """Answers questions under its cases, by whatever means."""

    @property
    def cases(self) -> tuple[Case, ...]: ...

    def answers(self, asked: AskedImages, first_image: int) -> list[tuple[str, ...]]:
        """One row per case, in it one answer per question; the images are numbered from ``first_image`` on."""
        ...


def collect(
    data: AskedData,
    images: int,
    batch_images: int,
    answerers: Sequence[Answerer],
    file: RecordFile,
    rule: ScoringRule,
    on_batch: Callable[[int], None],
) -> None:
    """Answers what ``file`` does not hold yet; ``on_batch`` gets the number of finished images after each batch.

    Every reference is scored once before its batch is answered, so that data that does not fit ``rule`` is refused
    before the work.
    """
    for start in range(len(file.records), images, batch_images):
        asked = data.take(range(start, min(start + batch_images, images)))
        for question in asked.questions:
            rule.score("", question.references)
        rows = [row for answerer in answerers for row in answerer.answers(asked, start)]
        file.append(list(by_image(asked, rows, start)))
        on_batch(len(file.records))


def by_image(asked: AskedImages, rows: Sequence[tuple[str, ...]], first_image: int) -> list[ImageRecord]:
    records = []
    for index in range(len(asked.images)):
        mine = [r for r, owner in enumerate(asked.image_of) if owner == index]
        questions = tuple(asked.questions[r] for r in mine)
        records.append(ImageRecord(first_image + index, questions, tuple(tuple(row[r] for r in mine) for row in rows)))
    return records
