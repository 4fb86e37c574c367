"""References: digests of default scenes taken before presets existed; what each preset promises, counted."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from grip_edge.calibration.scenes import SKILLS, ask, draw_scene, render, scene_seed
from grip_edge.calibration.scenes.presets import PRESETS, scene_settings
from grip_edge.calibration.scenes.scene import SceneSettings
from grip_edge.errors import UserError

SIDE_PX = 168
# (split, index): first 16 hex digits of SHA-256 over the pixels at 168 px, and over the questions
DIGESTS = {
    ("train", 0): ("e061851beec4f5f2", "474b2c0ebe8840cd"),
    ("train", 123): ("29000fc01b1ac6a2", "7fc53136c49fc9cb"),
    ("train", 4567): ("f0a7365ea66a3b9b", "14fcab8dc3524867"),
    ("validation", 1): ("ba3d4f4db0e66a1c", "553f4fefa330ef72"),
    ("validation", 7): ("c8b6b06999f8e348", "c735f74d44a46ac5"),
    ("test", 0): ("2c0c97c4b24c9412", "343e2a190e05f106"),
    ("test", 4567): ("6e7fda738dcf9d92", "c77b182e6dda354b"),
}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@pytest.mark.parametrize(("split", "index"), DIGESTS)
def test_the_default_scenes_are_what_models_were_trained_on(split: str, index: int) -> None:
    scene = draw_scene(scene_seed(split, index), scene_settings("default", SIDE_PX))
    asked = [(q.skill, q.text, q.answer, q.objects) for q in ask(scene, 6)]
    found = digest(np.asarray(render(scene, SIDE_PX)).tobytes()), digest(repr(asked).encode())
    assert found == DIGESTS[split, index]
    assert scene_settings("default", SIDE_PX) == SceneSettings()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_room_for_its_objects_and_every_skill_is_asked(name: str) -> None:
    preset = PRESETS[name]
    scenes = [draw_scene(scene_seed("validation", i), preset.settings) for i in range(60)]
    counts = np.array([len(scene.objects) for scene in scenes])
    assert counts.max() <= preset.settings.max_objects
    assert (counts >= preset.settings.min_objects).mean() > 0.95, counts
    assert {q.skill for scene in scenes for q in ask(scene, 5)} == set(SKILLS)


def test_presets_differ_as_their_names_say() -> None:
    def mean(name: str, what: str) -> float:
        scenes = [draw_scene(scene_seed("validation", i), PRESETS[name].settings) for i in range(60)]
        things = [thing for scene in scenes for thing in scene.objects]
        if what == "radius":
            return sum(thing.radius for thing in things) / len(things)
        return sum(what == "objects" or thing.glyph is not None for thing in things) / len(scenes)

    assert mean("crowded", "objects") > 1.6 * mean("default", "objects")
    assert mean("small", "radius") < 0.6 * mean("default", "radius")
    assert mean("dense-text", "glyphs") > 2.5 * mean("default", "glyphs")
    assert mean("high-resolution", "radius") < 0.6 * mean("default", "radius")


def test_unknown_presets_and_too_small_models_are_refused() -> None:
    with pytest.raises(UserError, match=r"no scenes 'huge'; expected one of default, crowded, small"):
        scene_settings("huge", SIDE_PX)
    with pytest.raises(UserError, match=r"at least 280 px per side; this one sees 168 px"):
        scene_settings("high-resolution", SIDE_PX)
