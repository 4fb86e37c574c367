"""What is varied: one thing per axis, everything else as in the middle of the others; and what is fitted along it."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers.shape import IMAGE_TOKEN, TEMPLATE, Shape
from benchmarks.scaling.models import BASE, family

TEMPLATE_TOKENS = len(TEMPLATE.replace(IMAGE_TOKEN, "").replace("{question}", "")) + 1  # a character each, and <s>
NEW_TOKENS = 16
_QUESTION_TOKENS = 16
_ANSWER = ("token_ms", "tokens_per_sec", "peak_rss_mb")
_COLUMNS = ("preprocess_ms", "vision_ms", "select_ms", "prefill_ms", "ttft_ms", *_ANSWER)


@dataclass(frozen=True)
class Point:
    """One kind of request. ``at`` is its place on the axis; ``line`` tells the curves of an axis apart."""

    model: str
    at: float
    kept_tokens: int
    question_tokens: int = _QUESTION_TOKENS
    questions: int = 1
    line: str = ""

    @property
    def name(self) -> str:
        """Also of a file."""
        return "-".join(f"{self.line} {self.at:g}".split())


@dataclass(frozen=True)
class Fit:
    """A polynomial of at most this degree through one quantity of one line; ``line`` None is all points."""

    quantity: str
    degree: int
    line: str | None = None


@dataclass(frozen=True)
class Axis:
    """``of`` is what one step on the axis adds. ``logarithmic``: both axes of its picture are."""

    name: str
    title: str
    of: str
    points: tuple[Point, ...]
    fits: tuple[Fit, ...]
    columns: tuple[str, ...] = _COLUMNS
    logarithmic: bool = False


def all_axes(shape_name: str) -> tuple[Axis, ...]:
    models = family(shape_name)
    return (
        _kept(models[BASE]),
        _visual(models),
        _text(models[BASE]),
        _cache(models[BASE]),
        _size(models),
        _batch(models[BASE]),
    )


def _kept(base: Shape) -> Axis:
    counts = [round(ratio * base.visual_tokens) for ratio in (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)]
    return Axis(
        "kept",
        f"kept visual tokens, of {base.visual_tokens}",
        "kept token",
        tuple(Point(BASE, count, count) for count in counts),
        (Fit("prefill_ms", 2), Fit("select_ms", 1), Fit("ttft_ms", 2), Fit("token_ms", 1), Fit("peak_rss_mb", 1)),
    )


def _visual(models: dict[str, Shape]) -> Axis:
    """Of one decoder only: the models whose image alone differs from the base's."""
    base = models[BASE]
    sides = {shape.visual_tokens: name for name, shape in models.items() if shape.width == base.width}
    fixed = min(sides) // 2
    pruned, whole = f"{fixed} kept", "all kept"
    return Axis(
        "visual",
        "visual tokens of the image",
        "visual token",
        tuple(
            Point(sides[count], count, kept, line=line)
            for count in sorted(sides)
            for line, kept in ((pruned, fixed), (whole, count))
        ),
        (
            Fit("vision_ms", 2),
            Fit("select_ms", 1, pruned),
            Fit("ttft_ms", 2, pruned),
            Fit("ttft_ms", 2, whole),
            Fit("peak_rss_mb", 1, pruned),
            Fit("peak_rss_mb", 1, whole),
        ),
    )


def _text(base: Shape) -> Axis:
    return Axis(
        "text",
        "tokens of the question",
        "token of the question",
        tuple(Point(BASE, count, _quarter(base), count) for count in (16, 64, 128, 256, 512, 1024)),
        (Fit("prefill_ms", 2), Fit("select_ms", 1), Fit("ttft_ms", 2), Fit("peak_rss_mb", 1)),
    )


def _cache(base: Shape) -> Axis:
    """``at`` is how many tokens the cache holds in the middle of the answer."""
    kept = max(1, base.visual_tokens // 20 + 1)
    others = kept + TEMPLATE_TOKENS + NEW_TOKENS // 2
    return Axis(
        "cache",
        "tokens in the cache",
        "cached token",
        tuple(Point(BASE, count, kept, count - others) for count in (64, 128, 256, 512, 1024, 1536, 2048)),
        (Fit("token_ms", 1), Fit("peak_rss_mb", 1)),
    )


def _size(models: dict[str, Shape]) -> Axis:
    base = models[BASE]
    sizes = [(shape.read_per_token / 1e9, name) for name, shape in models.items()]
    same_image = [(size, name) for size, name in sizes if models[name].visual_tokens == base.visual_tokens]
    return Axis(
        "size",
        "weights of the decoder, 10⁹",
        "10⁹ weights",
        tuple(Point(name, size, _quarter(base)) for size, name in sorted(same_image)),
        (Fit("prefill_ms", 1), Fit("token_ms", 1), Fit("peak_rss_mb", 1)),
        logarithmic=True,
    )


def _batch(base: Shape) -> Axis:
    return Axis(
        "batch",
        "questions about one image",
        "question",
        tuple(Point(BASE, count, _quarter(base), questions=count) for count in (1, 2, 4, 8)),
        (Fit("all_ms", 1), Fit("peak_rss_mb", 1)),
        ("all_ms", "each_ms", "ttft_ms", *_ANSWER),
    )


def _quarter(base: Shape) -> int:
    return base.visual_tokens // 4
