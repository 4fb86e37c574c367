"""What a bench asks: one image and question, or those of a JSONL file, each line {"image": ..., "question": ...}.

Images of a JSONL file are relative to its folder. Without an image a noisy gradient is made up, the same one every
time. Other keys of a line (answers, identifiers) are ignored, so that an evaluation's data can be used.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from grip_edge.errors import UserError

MADE_UP_NAME = "made-up JPEG, 640x480"
_MADE_UP_SIZE = (640, 480)


@dataclass(frozen=True)
class BenchInput:
    """``name`` is the image's name in the report."""

    path: Path
    question: str
    name: str


@contextmanager
def bench_inputs(image: Path | None, question: str, questions: Path | None) -> Iterator[tuple[BenchInput, ...]]:
    """``questions`` is a JSONL file and stands alone."""
    if questions is not None:
        if image is not None:
            raise UserError("--questions brings its own images; leave out --image.")
        yield read_questions(questions)
        return
    if image is not None:
        yield (BenchInput(image, question, str(image)),)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made-up.jpg"
        _made_up().save(path, quality=90)
        yield (BenchInput(path, question, MADE_UP_NAME),)


def read_questions(path: Path) -> tuple[BenchInput, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' cannot be read ({error}); expected a JSONL file of images and questions.") from None
    inputs = tuple(_input(line, path, number) for number, line in enumerate(lines, 1) if line.strip())
    if not inputs:
        raise UserError(f"'{path}' has no line; expected lines such as {_EXAMPLE}.")
    return inputs


def inputs_sha256(inputs: Sequence[BenchInput]) -> str:
    """Of all images' bytes and all questions, in order."""
    digest = hashlib.sha256()
    for one in inputs:
        content = one.path.read_bytes() if one.path.is_file() else b""  # the pipeline says what is wrong
        digest.update(hashlib.sha256(content).digest())
        digest.update(hashlib.sha256(one.question.encode(errors="surrogatepass")).digest())
    return digest.hexdigest()


_EXAMPLE = '{"image": "scene.png", "question": "What is on the left?"}'


def _input(line: str, origin: Path, number: int) -> BenchInput:
    try:
        document = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{origin}, line {number}: not valid JSON ({error}); expected {_EXAMPLE}.") from None
    values = [document.get(key) if isinstance(document, dict) else None for key in ("image", "question")]
    if not all(isinstance(value, str) and value for value in values):
        raise UserError(f"{origin}, line {number}: expected the texts image and question, as in {_EXAMPLE}.")
    image, question = values
    path = origin.parent / str(image)
    if not path.is_file():
        raise UserError(f"{origin}, line {number}: there is no image '{path}'; paths are relative to {origin.name}.")
    return BenchInput(path, str(question), str(image))


def _made_up() -> Image.Image:
    """A noisy colour gradient, which JPEG does not make trivially small."""
    width, height = _MADE_UP_SIZE
    across, down = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
    noise = np.random.default_rng(0).uniform(0, 55, (height, width, 3))
    return Image.fromarray((np.stack([across, down, 200 - across], axis=-1) + noise).astype(np.uint8))
