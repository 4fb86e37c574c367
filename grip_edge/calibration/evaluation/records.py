"""Answers on disk, one JSON line per image, so that an evaluation that was killed continues where it was.

The first line says what is being evaluated; records of anything else are refused, never mixed. Images are appended a
batch at a time. A last batch that is not complete is dropped when the file is opened again: since a batch is always
answered as a whole, a continued run writes the same bytes as one that was not interrupted.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grip_edge.calibration.data import AskedQuestion
from grip_edge.errors import UserError

RECORDS_KIND = "grip-edge evaluation records"
RECORDS_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ImageRecord:
    """``answers`` holds one row per case and in it one answer per question."""

    image: int
    questions: tuple[AskedQuestion, ...]
    answers: tuple[tuple[str, ...], ...]

    def to_line(self) -> str:
        return json.dumps(dataclasses.asdict(self), separators=(",", ":")) + "\n"

    @classmethod
    def from_line(cls, line: str) -> ImageRecord:
        data = json.loads(line)
        questions = (
            AskedQuestion(q["text"], q["answer"], tuple(q["references"]), q["group"]) for q in data["questions"]
        )
        return cls(data["image"], tuple(questions), tuple(tuple(row) for row in data["answers"]))


class RecordFile:
    """``asked`` is everything that decides the answers, as JSON can hold it."""

    def __init__(self, path: Path, asked: dict[str, Any], images: int, batch_images: int) -> None:
        self.path = path
        self._images = images
        self._batch_images = batch_images
        self._head = {"kind": RECORDS_KIND, "schema_version": RECORDS_SCHEMA_VERSION, "asked": asked}
        self.records: list[ImageRecord] = self._resume() if path.exists() else self._begin()

    def append(self, records: Sequence[ImageRecord]) -> None:
        """The next batch."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(record.to_line() for record in records))
        self.records += records

    def _begin(self) -> list[ImageRecord]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self._head) + "\n", encoding="utf-8")
        return []

    def _resume(self) -> list[ImageRecord]:
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        if not lines or not lines[0].endswith("\n"):
            return self._begin()  # killed while the first line was written
        self._check(lines[0])
        whole = [line for line in lines[1:] if line.endswith("\n")]
        finished = len(whole) == self._images
        kept = whole if finished else whole[: len(whole) // self._batch_images * self._batch_images]
        self._cut("".join([lines[0], *kept]))
        return [ImageRecord.from_line(line) for line in kept]

    def _check(self, line: str) -> None:
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            found = None
        if not isinstance(found, dict) or found.get("kind") != RECORDS_KIND:
            raise UserError(f"{self.path} holds no records of an evaluation; choose another --out.")
        wanted = json.loads(json.dumps(self._head))
        if found == wanted:
            return
        theirs, ours = found.get("asked", {}), wanted["asked"]
        odd = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
        raise UserError(
            f"{self.path} holds the records of another evaluation ({', '.join(odd) or 'schema_version'} differ); "
            "choose another --out, or start anew with --force."
        )

    def _cut(self, text: str) -> None:
        content = text.encode()
        if len(content) < self.path.stat().st_size:
            with self.path.open("r+b") as file:
                file.truncate(len(content))
