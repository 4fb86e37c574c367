"""Rendered scenes with questions: the benchmark that ships with grip-edge.

``draw_scene(seed)`` -> ``render`` -> pixels; ``ask(scene)`` -> questions with reference answers; ``splits`` keeps
training, validation and test apart.
"""

from grip_edge.calibration.scenes.question import Question
from grip_edge.calibration.scenes.questions import SKILLS, ask, exact_match
from grip_edge.calibration.scenes.render import render
from grip_edge.calibration.scenes.scene import Scene, SceneObject, SceneSettings, draw_scene
from grip_edge.calibration.scenes.splits import SPLITS, scene_seed

__all__ = [
    "SKILLS",
    "SPLITS",
    "Question",
    "Scene",
    "SceneObject",
    "SceneSettings",
    "ask",
    "draw_scene",
    "exact_match",
    "render",
    "scene_seed",
]
