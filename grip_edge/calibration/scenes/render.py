"""Pixels of a scene (Pillow): shapes on a cluttered, noisy background, at any square resolution.

Drawn at twice the resolution and averaged down, so edges are smooth; sensor noise is added last. Deterministic in
``scene.seed``.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from grip_edge.calibration.scenes.scene import COLOURS, Scene, SceneObject

_SUPERSAMPLE = 2
_GLYPH_HEIGHT = {"triangle": 0.78, "star": 0.78, "heart": 0.95, "cross": 0.95}
_GLYPH_SHIFT = {"triangle": 0.20, "heart": -0.08}


def render(scene: Scene, side_px: int = 168) -> Image.Image:
    """The scene as an RGB image of ``side_px`` x ``side_px``."""
    rng = np.random.default_rng([scene.seed, 2])
    canvas_px = side_px * _SUPERSAMPLE
    image = _background(rng, canvas_px)
    draw = ImageDraw.Draw(image)
    _clutter(draw, rng, canvas_px, int(rng.integers(*scene.settings.clutter_items, endpoint=True)))
    for thing in scene.objects:
        colour = _shaded(rng, COLOURS[thing.colour])
        draw_shape(draw, thing, canvas_px, colour)
        if thing.glyph:
            _draw_glyph(draw, thing, canvas_px, colour)
    pixels = np.asarray(image.reduce(_SUPERSAMPLE), dtype=np.float32)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * scene.settings.noise_std
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def draw_shape(draw: ImageDraw.ImageDraw, thing: SceneObject, side_px: int, fill: int | tuple[int, int, int]) -> None:
    """Fill the outline of ``thing``; ``labels`` calls this too, so masks and pixels cannot disagree."""
    x, y, r = thing.x * side_px, thing.y * side_px, thing.radius * side_px
    if thing.shape == "circle":
        draw.ellipse((x - 0.95 * r, y - 0.95 * r, x + 0.95 * r, y + 0.95 * r), fill=fill)
    elif thing.shape == "square":
        draw.rectangle((x - 0.82 * r, y - 0.82 * r, x + 0.82 * r, y + 0.82 * r), fill=fill)
    elif thing.shape == "cross":
        arm = 0.36 * r
        draw.rectangle((x - r, y - arm, x + r, y + arm), fill=fill)
        draw.rectangle((x - arm, y - r, x + arm, y + r), fill=fill)
    else:
        draw.polygon([(x + r * dx, y + r * dy) for dx, dy in _OUTLINES[thing.shape]], fill=fill)


def glyph_box(thing: SceneObject) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the glyph's square, in fractions of the image side."""
    half = thing.radius * _GLYPH_HEIGHT.get(thing.shape, 1.05) / 2
    y = thing.y + thing.radius * _GLYPH_SHIFT.get(thing.shape, 0.0)
    return thing.x - half, y - half, thing.x + half, y + half


def _draw_glyph(draw: ImageDraw.ImageDraw, thing: SceneObject, side_px: int, on: tuple[int, int, int]) -> None:
    left, top, right, bottom = (v * side_px for v in glyph_box(thing))
    luminance = 0.30 * on[0] + 0.59 * on[1] + 0.11 * on[2]
    ink = (12, 12, 16) if luminance > 110 else (250, 250, 250)
    font = ImageFont.load_default(size=1.32 * (bottom - top))
    draw.text(
        ((left + right) / 2, (top + bottom) / 2),
        thing.glyph or "",
        font=font,
        fill=ink,
        anchor="mm",
        stroke_width=max(1, round(0.004 * side_px)),
        stroke_fill=ink,
    )


def _star() -> list[tuple[float, float]]:
    angles = [math.pi * (i / 5 - 0.5) for i in range(10)]
    return [
        ((1.0 if i % 2 == 0 else 0.45) * math.cos(a), (1.0 if i % 2 == 0 else 0.45) * math.sin(a))
        for i, a in enumerate(angles)
    ]


def _heart() -> list[tuple[float, float]]:
    ts = np.linspace(0.0, 2 * math.pi, 40, endpoint=False)
    xs = 16 * np.sin(ts) ** 3
    ys = -(13 * np.cos(ts) - 5 * np.cos(2 * ts) - 2 * np.cos(3 * ts) - np.cos(4 * ts))
    return [(float(x) / 17.0, (float(y) - 2.0) / 17.0) for x, y in zip(xs, ys, strict=True)]


_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "triangle": [(0.0, -1.0), (0.95, 0.80), (-0.95, 0.80)],
    "star": _star(),
    "heart": _heart(),
}


def _shaded(rng: np.random.Generator, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    jitter = rng.integers(-12, 13, size=3) + rng.integers(-10, 11)
    red, green, blue = (int(v) for v in np.clip(np.asarray(colour) + jitter, 0, 255))
    return red, green, blue


def _muted(rng: np.random.Generator) -> tuple[int, int, int]:
    grey = rng.integers(70, 176)
    red, green, blue = (int(v) for v in np.clip(grey + rng.integers(-22, 23, size=3), 0, 255))
    return red, green, blue


def _background(rng: np.random.Generator, side_px: int) -> Image.Image:
    """A soft gradient between muted corner colours."""
    corners = np.array([[_muted(rng) for _ in range(2)] for _ in range(2)], dtype=np.uint8)
    return Image.fromarray(corners).resize((side_px, side_px), Image.Resampling.BILINEAR)


def _clutter(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side_px: int, count: int) -> None:
    """Muted lines, blobs and boxes: texture that a careless eye could take for objects."""
    for _ in range(count):
        x, y = rng.uniform(0, side_px, size=2)
        w, h = rng.uniform(0.02, 0.22, size=2) * side_px
        colour, kind = _muted(rng), rng.integers(3)
        if kind == 0:
            width = int(rng.integers(1, max(2, side_px // 60)))
            draw.line((x, y, x + rng.uniform(-2, 2) * w, y + rng.uniform(-2, 2) * h), fill=colour, width=width)
        elif kind == 1:
            draw.ellipse((x, y, x + w, y + h), fill=colour)
        else:
            draw.rectangle((x, y, x + w, y + h), outline=colour, width=max(1, side_px // 110))
