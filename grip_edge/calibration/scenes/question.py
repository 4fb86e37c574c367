"""A question about a scene, and the words that point at its objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grip_edge.calibration.scenes.scene import Scene


@dataclass(frozen=True)
class Question:
    skill: str
    text: str
    answer: str
    objects: tuple[int, ...]


def pick(rng: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def colour_word(rng: np.random.Generator) -> str:
    return pick(rng, ("colour", "color"))


def reference(rng: np.random.Generator, scene: Scene, index: int, hide: str) -> str | None:
    """A noun phrase that fits object ``index`` alone and does not give away its ``hide`` attribute."""
    thing = scene.objects[index]
    candidates: list[tuple[str, tuple[str, ...]]] = []
    if hide != "colour":
        candidates.append((f"{thing.colour} {pick(rng, ('shape', 'object', 'thing'))}", ("colour",)))
    if hide != "shape":
        candidates.append((thing.shape, ("shape",)))
    if hide not in ("colour", "shape"):
        candidates.append((thing.name, ("colour", "shape")))
    if hide not in ("size", "shape"):
        candidates.append((f"{thing.size} {thing.shape}", ("size", "shape")))
    unique = [phrase for phrase, keys in candidates if count(scene, **{k: getattr(thing, k) for k in keys}) == 1]
    return pick(rng, unique) if unique else None


def count(scene: Scene, **wanted: str) -> int:
    return len(matching(scene, **wanted))


def matching(scene: Scene, **wanted: str) -> tuple[int, ...]:
    return tuple(
        i for i, thing in enumerate(scene.objects) if all(getattr(thing, key) == value for key, value in wanted.items())
    )
