"""Rendered scenes as training and evaluation data: drawn by number, never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grip_edge.calibration.data.asked import AskedImages, AskedQuestion
from grip_edge.calibration.scenes import Question, SceneSettings, ask, draw_scene, render, scene_seed


@dataclass(frozen=True)
class SceneData:
    """The first ``images`` scenes of a split at ``side_px`` pixels, ``questions_per_image`` questions about each."""

    split: str
    side_px: int
    questions_per_image: int
    settings: SceneSettings = SceneSettings()
    images: int = 1_000_000
    preset: str | None = None

    @property
    def name(self) -> str:
        kind = "rendered scenes" if self.preset is None else f"rendered scenes ({self.preset})"
        return f"{kind}, split {self.split}"

    def __len__(self) -> int:
        return self.images

    def take(self, indices: Sequence[int]) -> AskedImages:
        scenes = [draw_scene(scene_seed(self.split, int(i)), self.settings) for i in indices]
        asked = [ask(scene, self.questions_per_image) for scene in scenes]
        return AskedImages(
            tuple(render(scene, self.side_px) for scene in scenes),
            tuple(_asked(question) for questions in asked for question in questions),
            tuple(row for row, questions in enumerate(asked) for _ in questions),
        )


def _asked(question: Question) -> AskedQuestion:
    return AskedQuestion(question.text, question.answer, (question.answer,), question.skill)
