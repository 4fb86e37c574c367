"""Questions about where one object lies as seen from another, and about the outermost object.

Not asked where the answer would be in doubt: objects that nearly touch, or lie on a diagonal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from grip_edge.calibration.scenes.question import Question, pick, reference
from grip_edge.calibration.scenes.scene import Scene, SceneObject

_MIN_GAP = 0.10  # how far apart two objects must lie, in image sides, for "left" or "above" to be beyond doubt


def _side(thing: SceneObject, other: SceneObject) -> str | None:
    """Where ``thing`` lies as seen from ``other``; None where it is not clear-cut."""
    dx, dy = thing.x - other.x, thing.y - other.y
    if max(abs(dx), abs(dy)) < _MIN_GAP or not (abs(dx) > 1.5 * abs(dy) or abs(dy) > 1.5 * abs(dx)):
        return None
    if abs(dx) > abs(dy):
        return "left" if dx < 0 else "right"
    return "above" if dy < 0 else "below"


_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_SIDE_PHRASE = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}


def ask_relation(rng: np.random.Generator, scene: Scene) -> Question | None:
    if rng.random() < 0.3:
        return _outermost(rng, scene)
    if len(scene.objects) < 2:
        return None
    first, second = (int(i) for i in rng.choice(len(scene.objects), size=2, replace=False))
    side = _side(scene.objects[first], scene.objects[second])
    a, b = reference(rng, scene, first, hide=""), reference(rng, scene, second, hide="")
    if side is None or a is None or b is None:
        return None
    if rng.random() < 0.5:
        text = pick(
            rng,
            (
                f"Where is the {a}, seen from the {b}: left, right, above or below?",
                f"Is the {a} left, right, above or below the {b}?",
                f"On which side of the {b} is the {a}?",
            ),
        )
        return Question("relation", text, side, (first, second))
    asked = side if rng.random() < 0.5 else _OPPOSITE[side]
    text = pick(rng, (f"Is the {a} {_SIDE_PHRASE[asked]} the {b}?", f"Does the {a} lie {_SIDE_PHRASE[asked]} the {b}?"))
    return Question("relation", text, "yes" if asked == side else "no", (first, second))


_EXTREMES: dict[str, Callable[[SceneObject], float]] = {
    "leftmost": lambda thing: thing.x,
    "rightmost": lambda thing: -thing.x,
    "topmost": lambda thing: thing.y,
    "lowest": lambda thing: -thing.y,
}


def _outermost(rng: np.random.Generator, scene: Scene) -> Question | None:
    word = pick(rng, tuple(_EXTREMES))
    ranked = sorted(range(len(scene.objects)), key=lambda i: _EXTREMES[word](scene.objects[i]))
    places = [_EXTREMES[word](scene.objects[i]) for i in ranked]
    if len(places) > 1 and places[1] - places[0] < _MIN_GAP:
        return None
    noun = pick(rng, ("shape", "object", "thing"))
    text = pick(rng, (f"What is the {word} {noun}?", f"Which {noun} is the {word} one?", f"Name the {word} {noun}."))
    return Question("relation", text, scene.objects[ranked[0]].name, tuple(ranked))
