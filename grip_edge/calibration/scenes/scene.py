"""What a rendered scene is made of, and how one is drawn from a seed.

A scene is a handful of coloured shapes that do not overlap, some of them carrying a letter or a digit. Everything
is described in fractions of the image side, so the same scene renders at any resolution. The seed alone decides the
scene: two processes that agree on seed and settings agree on every pixel and every question.

Not here: pixels (``render``), per-patch labels (``labels``), questions (``questions``), seed ranges (``splits``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grip_edge.errors import UserError

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 40),
    "orange": (247, 140, 20),
    "yellow": (245, 226, 50),
    "green": (46, 160, 60),
    "blue": (36, 84, 216),
    "purple": (146, 56, 176),
    "white": (244, 244, 244),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
SIZES = ("small", "large")
GLYPHS = tuple("ACEHKLMPRTUXYZ234579")


@dataclass(frozen=True)
class SceneSettings:
    """How crowded and how small; the defaults are the standard benchmark.

    Radii are fractions of the image side: the object fits a circle of that radius. Only large objects carry glyphs.
    """

    min_objects: int = 3
    max_objects: int = 6
    small_radius: tuple[float, float] = (0.062, 0.078)
    large_radius: tuple[float, float] = (0.105, 0.130)
    large_probability: float = 0.6
    glyph_probability: float = 0.55
    theme_probability: float = 0.5
    clutter_items: tuple[int, int] = (8, 22)
    noise_std: float = 7.0

    def __post_init__(self) -> None:
        if not 1 <= self.min_objects <= self.max_objects <= 12:
            raise UserError(
                f"A scene has 1 to 12 objects; got min_objects={self.min_objects}, max_objects={self.max_objects}."
            )


@dataclass(frozen=True)
class SceneObject:
    """One shape. ``x``, ``y`` and ``radius`` are fractions of the image side; y grows downwards."""

    colour: str
    shape: str
    size: str
    x: float
    y: float
    radius: float
    glyph: str | None

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    seed: int
    settings: SceneSettings
    objects: tuple[SceneObject, ...]


def draw_scene(seed: int, settings: SceneSettings = SceneSettings()) -> Scene:
    """The scene of this seed. (colour, shape) pairs are unique in it, so that every object can be named."""
    rng = np.random.default_rng([seed, 1])
    wanted = int(rng.integers(settings.min_objects, settings.max_objects + 1))
    theme = _theme(rng, settings)
    objects: list[SceneObject] = []
    for _ in range(60 * wanted):
        if len(objects) == wanted:
            break
        candidate = _draw_object(rng, settings, theme)
        if not any(_collide(candidate, other) or candidate.name == other.name for other in objects):
            objects.append(_without_repeated_glyph(candidate, objects))
    return Scene(seed, settings, tuple(objects))


def _theme(rng: np.random.Generator, settings: SceneSettings) -> tuple[str | None, str | None]:
    """A colour or a shape that many objects of the scene share, so that counts above one are common."""
    if rng.random() >= settings.theme_probability:
        return None, None
    if rng.random() < 0.5:
        return str(rng.choice(list(COLOURS))), None
    return None, str(rng.choice(SHAPES))


def _draw_object(
    rng: np.random.Generator, settings: SceneSettings, theme: tuple[str | None, str | None]
) -> SceneObject:
    theme_colour, theme_shape = theme
    follows = rng.random() < 0.6
    colour = theme_colour if theme_colour and follows else str(rng.choice(list(COLOURS)))
    shape = theme_shape if theme_shape and follows else str(rng.choice(SHAPES))
    size = str(rng.choice(SIZES, p=(1 - settings.large_probability, settings.large_probability)))
    low, high = settings.large_radius if size == "large" else settings.small_radius
    radius = float(rng.uniform(low, high))
    x, y = (float(v) for v in rng.uniform(radius + 0.01, 0.99 - radius, size=2))
    glyph = None
    if size == "large" and rng.random() < settings.glyph_probability:
        glyph = str(rng.choice(GLYPHS))
    return SceneObject(colour, shape, size, x, y, radius, glyph)


def _collide(a: SceneObject, b: SceneObject) -> bool:
    return float(np.hypot(a.x - b.x, a.y - b.y)) < a.radius + b.radius + 0.02


def _without_repeated_glyph(candidate: SceneObject, others: list[SceneObject]) -> SceneObject:
    if candidate.glyph is None or candidate.glyph not in {other.glyph for other in others}:
        return candidate
    return SceneObject(
        candidate.colour, candidate.shape, candidate.size, candidate.x, candidate.y, candidate.radius, None
    )
