"""Why these patches: for each budget the kept patches, the scores that chose them as heat, and the answer.

    question
    budget 0.1            budget 0.25           budget 1.0
    kept patches          kept patches          kept patches
    scores as heat        scores as heat        scores as heat
    answer                answer                answer

Heat runs from the image's low scores (2nd percentile) to its high ones (98th), for each budget on its own, since a
scorer may weigh tokens differently at another budget. Kept patches are outlined in both pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from grip_edge.manifest import Manifest
from grip_edge.runtime.captions import INK, text_strip
from grip_edge.runtime.image import ImageSource, open_image
from grip_edge.runtime.kept_image import dimmed, outlined
from grip_edge.runtime.result import Result
from grip_edge.runtime.views import GAP_PX, PAPER, View, image_views, on_one_page

_SIDE_PX = 420
_TEXT_PX = 20
_MARGIN_PX = 16
_HEAT_SHARE = 0.62  # of the colour, against the grey picture behind it
_ENDS = (2, 98)
# Dark to bright in even steps of lightness, so that it reads in grey as well (after matplotlib's inferno).
_HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64)
_LEGEND_SIZE = (220, 14)


@dataclass(frozen=True)
class Panel:
    """``scores`` [N], one for each visual token."""

    title: str
    answer: str
    kept_indices: tuple[int, ...]
    scores: tuple[float, ...]


def panel_of(result: Result) -> Panel:
    budget = result.budget
    title = f"budget {budget.requested}: {budget.kept_tokens} of {budget.visual_tokens} tokens"
    return Panel(title, result.answer, result.kept_indices, result.scores)


def draw_explanation(source: ImageSource, manifest: Manifest, question: str, panels: Sequence[Panel]) -> Image.Image:
    views = image_views(open_image(source), manifest, _SIDE_PX)
    columns = [_column(views, panel) for panel in panels]
    width = sum(column.width for column in columns) + GAP_PX * (len(columns) - 1) + 2 * _MARGIN_PX
    head, foot = text_strip(question, width, round(1.3 * _TEXT_PX)), _legend(width)
    height = head.height + max(column.height for column in columns) + foot.height
    page = Image.new("RGB", (width, height), PAPER)
    page.paste(head, (0, 0))
    left = _MARGIN_PX
    for column in columns:
        page.paste(column, (left, head.height))
        left += column.width + GAP_PX
    page.paste(foot, (0, height - foot.height))
    return page


def heat(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """[...] from 0 to 1 -> RGB [...,3]."""
    stops = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(values, stops, _HEAT[:, channel]) for channel in range(3)], axis=-1).astype(np.uint8)


def score_levels(scores: Sequence[float]) -> NDArray[np.float64]:
    """From 0 (low) to 1 (high); scores that are not finite (a policy's "never") are 0."""
    values = np.asarray(scores, np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros_like(values)
    low, high = np.percentile(values[finite], _ENDS)
    spread = high - low if high > low else 1.0
    levels: NDArray[np.float64] = np.clip((np.where(finite, values, low) - low) / spread, 0.0, 1.0)
    return levels


def _column(views: Sequence[View], panel: Panel) -> Image.Image:
    levels = np.append(score_levels(panel.scores), 0.0)  # the last one is for patches without a token, index -1
    kept = on_one_page([dimmed(view.picture, view.chosen(panel.kept_indices)) for view in views])
    hot = on_one_page([_heated(view, levels, panel) for view in views])
    parts = [
        text_strip(panel.title, kept.width, round(0.8 * _TEXT_PX)),
        kept,
        hot,
        text_strip(panel.answer or "(no answer)", kept.width, _TEXT_PX),
    ]
    column = Image.new("RGB", (kept.width, sum(part.height for part in parts) + GAP_PX), PAPER)
    top = 0
    for part in parts:
        column.paste(part, (0, top))
        top += part.height + (GAP_PX if part is kept else 0)
    return column


def _heated(view: View, levels: NDArray[np.float64], panel: Panel) -> Image.Image:
    colours = Image.fromarray(heat(levels[view.tokens])).resize(view.picture.size, Image.Resampling.NEAREST)
    blended = Image.blend(view.picture.convert("L").convert("RGB"), colours, _HEAT_SHARE)
    return outlined(blended, view.chosen(panel.kept_indices))


def _legend(width_px: int) -> Image.Image:
    """low score [bar] high score; outlined: kept"""
    size_px = round(0.8 * _TEXT_PX)
    font = ImageFont.load_default(size_px)
    strip = Image.new("RGB", (width_px, 2 * size_px + _LEGEND_SIZE[1]), PAPER)
    draw = ImageDraw.Draw(strip)
    low, middle = "low score", strip.height // 2
    draw.text((_MARGIN_PX, middle), low, fill=INK, font=font, anchor="lm")
    left = _MARGIN_PX + round(font.getlength(low)) + _MARGIN_PX
    bar = heat(np.linspace(0, 1, _LEGEND_SIZE[0])[None].repeat(_LEGEND_SIZE[1], axis=0))
    strip.paste(Image.fromarray(bar), (left, middle - _LEGEND_SIZE[1] // 2))
    right = left + _LEGEND_SIZE[0] + _MARGIN_PX
    draw.text((right, middle), "high score; outlined: kept", fill=INK, font=font, anchor="lm")
    return strip
