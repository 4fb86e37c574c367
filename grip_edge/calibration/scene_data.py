"""Rendered scenes as training and evaluation data: images with questions, drawn by number, never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from grip_edge.calibration.scenes import Question, SceneSettings, ask, draw_scene, render, scene_seed


@dataclass(frozen=True)
class AskedImages:
    """B images and R questions; ``image_of[r]`` is the image of question r."""

    images: tuple[Image.Image, ...]
    questions: tuple[Question, ...]
    image_of: tuple[int, ...]


@dataclass(frozen=True)
class SceneData:
    """``questions_per_image`` questions about each scene of a split, at ``side_px`` pixels."""

    split: str
    side_px: int
    questions_per_image: int
    settings: SceneSettings = SceneSettings()

    def take(self, indices: Sequence[int]) -> AskedImages:
        scenes = [draw_scene(scene_seed(self.split, int(i)), self.settings) for i in indices]
        asked = [ask(scene, self.questions_per_image) for scene in scenes]
        return AskedImages(
            tuple(render(scene, self.side_px) for scene in scenes),
            tuple(question for questions in asked for question in questions),
            tuple(row for row, questions in enumerate(asked) for _ in questions),
        )
