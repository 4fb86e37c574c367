"""A small data set on disk for evaluation: random pictures, two or three questions about each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

QUESTIONS = ("what is it?", "is there a dog?", "how many things are there in it?")


def write_questions(folder: Path, images: int = 7, answers: dict[tuple[int, str], str] | None = None) -> Path:
    """FOLDER/test.jsonl; ``answers`` by image and question, else "red"."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = []
    for number in range(images):
        Image.fromarray(rng.integers(0, 256, (60, 70, 3)).astype(np.uint8)).save(folder / f"{number}.png")
        for index, question in enumerate(QUESTIONS[: 2 + number % 2]):
            answer = (answers or {}).get((number, question), "red")
            group = ("what", "yes-no", "count")[index]
            lines.append({"image": f"{number}.png", "question": question, "answer": answer, "group": group})
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
