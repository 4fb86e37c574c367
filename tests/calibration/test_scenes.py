"""References: the seed (determinism), geometry recomputed from the objects, and answers derived a second way."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from grip_edge.calibration.scenes import SKILLS, SPLITS, ask, draw_scene, exact_match, render, scene_seed
from grip_edge.calibration.scenes.labels import LABEL_CLASSES, patch_labels, patch_owner
from grip_edge.calibration.scenes.questions import vocabulary
from grip_edge.calibration.scenes.scene import COLOURS, GLYPHS, SHAPES, Scene, SceneSettings
from grip_edge.errors import UserError

SCENES = [draw_scene(scene_seed("validation", i)) for i in range(150)]


def test_a_seed_decides_scene_pixels_and_questions() -> None:
    again = draw_scene(SCENES[0].seed)
    assert again == SCENES[0]
    assert np.array_equal(np.asarray(render(again)), np.asarray(render(SCENES[0])))
    assert ask(again, 6) == ask(SCENES[0], 6)
    assert not np.array_equal(np.asarray(render(SCENES[1])), np.asarray(render(SCENES[0])))


def test_splits_share_no_seed_and_no_scene() -> None:
    for seeds, others in itertools.combinations(SPLITS.values(), 2):
        assert max(seeds.start, others.start) >= min(seeds.stop, others.stop), (seeds, others)
    drawn = {split: {draw_scene(scene_seed(split, i)).objects for i in range(60)} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not drawn[one] & drawn[other]


def test_an_unknown_split_and_an_index_outside_are_refused() -> None:
    with pytest.raises(UserError, match="expected one of train, validation, test"):
        scene_seed("dev", 0)
    with pytest.raises(UserError, match="scenes 0 to 999999; got index 1000000"):
        scene_seed("test", 1_000_000)


def test_objects_do_not_overlap_and_have_unique_names() -> None:
    for scene in SCENES:
        assert len({thing.name for thing in scene.objects}) == len(scene.objects)
        for a, b in itertools.combinations(scene.objects, 2):
            assert np.hypot(a.x - b.x, a.y - b.y) > a.radius + b.radius
        for thing in scene.objects:
            assert thing.radius < thing.x < 1 - thing.radius
            assert thing.radius < thing.y < 1 - thing.radius


def test_the_centre_of_a_shape_is_painted_in_its_colour() -> None:
    for scene in SCENES[:40]:
        pixels = np.asarray(render(scene, 168), dtype=float)
        for thing in scene.objects:
            if thing.glyph is None:
                x, y = int(thing.x * 168), int(thing.y * 168)
                mean = pixels[y - 1 : y + 2, x - 1 : x + 2].mean(axis=(0, 1))
                nearest = min(COLOURS, key=lambda name: np.abs(mean - np.array(COLOURS[name])).sum())
                assert nearest == thing.colour, (thing, mean)


def test_patch_labels_name_the_object_under_the_patch() -> None:
    for scene in SCENES[:40]:
        owner, labels = patch_owner(scene, 12), patch_labels(scene, 12)
        assert labels.stacked().shape == (len(LABEL_CLASSES), 12, 12)
        for index, thing in enumerate(scene.objects):
            row, column = int(thing.y * 12), int(thing.x * 12)
            assert owner[row, column] == index + 1
            assert labels.colour[row, column] == list(COLOURS).index(thing.colour) + 1
            assert labels.shape[row, column] == SHAPES.index(thing.shape) + 1
            if thing.glyph is not None:
                assert GLYPHS.index(thing.glyph) + 1 in labels.glyph[owner == index + 1]
        assert labels.centre.sum() == len(scene.objects)


def test_every_skill_is_asked_and_answers_are_balanced() -> None:
    asked = [q for scene in SCENES for q in ask(scene, 8)]
    per_skill = Counter(q.skill for q in asked)
    assert set(per_skill) == set(SKILLS)
    assert min(per_skill.values()) > 0.12 * len(asked), per_skill
    existence = Counter(q.answer for q in asked if q.skill == "existence")
    assert 0.4 < existence["yes"] / sum(existence.values()) < 0.6, existence


def test_answers_are_words_of_the_vocabulary() -> None:
    words = set(vocabulary())
    for scene in SCENES:
        for question in ask(scene, 8):
            assert set(question.answer.split()) <= words, question


def _answer_again(scene: Scene, text: str) -> str | None:
    """A second reading of the plainest templates, from the words alone."""
    words = text.rstrip("?.").replace(",", "").split()
    if text.startswith(("Is there", "Can you see", "Does the picture show")):
        wanted = [w for w in words if w in COLOURS or w in SHAPES]
        return "yes" if any(all(w in (o.colour, o.shape) for w in wanted) for o in scene.objects) else "no"
    if text.startswith(("How many", "Count the", "What is the number")):
        if "letter" in words:
            return str(sum(o.glyph is not None for o in scene.objects))
        singular = [w if w in COLOURS else w.removesuffix("es" if w == "crosses" else "s") for w in words]
        wanted = [w for w in singular if w in COLOURS or w in SHAPES]
        return str(sum(all(w in (o.colour, o.shape) for w in wanted) for o in scene.objects))
    for word, key in (("leftmost", "x"), ("rightmost", "-x"), ("topmost", "y"), ("lowest", "-y")):
        if word in words:
            sign = -1 if key.startswith("-") else 1
            return min(scene.objects, key=lambda o: sign * getattr(o, key[-1])).name
    return None


def test_answers_agree_with_a_second_reading_of_the_question() -> None:
    checked = Counter[str]()
    for scene in SCENES:
        for question in ask(scene, 10):
            expected = _answer_again(scene, question.text)
            if expected is not None:
                assert question.answer == expected, (question, scene.objects)
                checked[question.skill] += 1
    assert min(checked["existence"], checked["counting"], checked["relation"]) > 30, checked


def test_harder_settings_crowd_the_scene_and_impossible_ones_are_refused() -> None:
    hard = SceneSettings(min_objects=7, max_objects=9, small_radius=(0.04, 0.05), large_radius=(0.07, 0.09))
    assert len(draw_scene(3, hard).objects) >= 7
    with pytest.raises(UserError, match="1 to 12 objects"):
        SceneSettings(min_objects=5, max_objects=4)


@pytest.mark.parametrize(
    ("answer", "reference", "match"),
    [("red", "red", True), (" Red. ", "red", True), ("reds", "red", False), ("", "red", False), ("k", "K", True)],
)
def test_exact_match(answer: str, reference: str, match: bool) -> None:
    assert exact_match(answer, reference) is match
