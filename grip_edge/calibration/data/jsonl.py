"""A user's own questions: one JSON object per line, images beside the file.

    {"image": "images/0001.jpg", "question": "What colour is the car?", "answer": "red"}
    {"image": "images/0001.jpg", "question": "How many people?", "answer": ["2", "two", "2"], "group": "counting"}

``image`` is relative to the file. Lines of the same image belong together. Of several answers all are accepted and
the most frequent is the reference. ``group`` may also be called ``skill`` or ``category``; further keys are left
alone. The whole file is checked when it is opened; images are decoded when they are taken.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grip_edge.calibration.data.asked import AskedImages, AskedQuestion
from grip_edge.calibration.data.image_file import read_image
from grip_edge.errors import UserError

_GROUP_KEYS = ("group", "skill", "category")
_EVERYTHING = "all"

# Of a hundred images of a file that holds no splits: the first of these go to test, the next to validation.
_TEST_SHARE, _VALIDATION_SHARE = 5, 5


@dataclass(frozen=True)
class _AskedFile:
    name: str
    """As written in the data file: decides the split, so that moving the folder changes nothing."""
    path: Path
    questions: tuple[AskedQuestion, ...]


@dataclass(frozen=True)
class JsonlData:
    name: str
    files: tuple[_AskedFile, ...]

    @classmethod
    def open(cls, path: Path, questions_per_image: int | None = None) -> JsonlData:
        """``questions_per_image`` keeps at most that many of each image, the first ones; None keeps all."""
        asked: dict[str, list[AskedQuestion]] = {}
        for number, line in enumerate(_lines(path), start=1):
            if line.strip():
                image, question = _parse(line, path, number)
                asked.setdefault(image, []).append(question)
        if not asked:
            raise UserError(f"{path} holds no questions; expected one JSON object per line.")
        files = [
            _AskedFile(image, path.parent / image, tuple(questions[:questions_per_image]))
            for image, questions in asked.items()
        ]
        return cls(str(path), tuple(files))

    def part(self, split: str) -> JsonlData:
        """The images of one split: 90 of 100 are train, 5 validation, 5 test, by the hash of their name."""
        files = tuple(file for file in self.files if split_of(file.name) == split)
        if not files:
            raise UserError(
                f"{self.name}: too few images ({len(self.files)}) to set some apart as split '{split}'; "
                "give a folder with train.jsonl, validation.jsonl and test.jsonl."
            )
        return replace(self, name=f"{self.name}, split {split}", files=files)

    def __len__(self) -> int:
        return len(self.files)

    def take(self, indices: Sequence[int]) -> AskedImages:
        taken = [self.files[int(index)] for index in indices]
        return AskedImages(
            tuple(read_image(file.path) for file in taken),
            tuple(question for file in taken for question in file.questions),
            tuple(row for row, file in enumerate(taken) for _ in file.questions),
        )


def split_of(image: str) -> str:
    percent = int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big") % 100
    if percent < _TEST_SHARE:
        return "test"
    return "validation" if percent < _TEST_SHARE + _VALIDATION_SHARE else "train"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); expected a UTF-8 file of JSON lines.") from None


def _parse(line: str, path: Path, number: int) -> tuple[str, AskedQuestion]:
    def bad(why: str) -> UserError:
        return UserError(f"{path}, line {number}: {why}.")

    try:
        entry: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise bad(f"not valid JSON ({error})") from None
    if not isinstance(entry, dict):
        raise bad("expected an object with image, question and answer")
    for key in ("image", "question"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise bad(f"expected a text as '{key}', got {entry.get(key)!r}")
    answers = entry.get("answer")
    references = [answers] if isinstance(answers, str) else answers
    if not isinstance(references, list) or not references or not all(isinstance(a, str) and a for a in references):
        raise bad(f"expected a text or a list of texts as 'answer', got {answers!r}")
    if not (path.parent / entry["image"]).is_file():
        raise bad(f"there is no image '{entry['image']}' in {path.parent}")
    answer = Counter(references).most_common(1)[0][0]
    group = next((str(entry[key]) for key in _GROUP_KEYS if key in entry), _EVERYTHING)
    return entry["image"], AskedQuestion(entry["question"].strip(), answer, tuple(references), group)
