"""A picture of what the language model saw: kept patches clear and outlined, dropped ones dimmed.

Shown is the image as the model gets it (``views``), enlarged to be good to look at. Of models that cut images into
tiles, the whole image is shown twice: with the patches of the small view, and with those of the detail.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from grip_edge.errors import UserError
from grip_edge.manifest import Manifest
from grip_edge.runtime.captions import text_strip
from grip_edge.runtime.image import ImageSource, open_image
from grip_edge.runtime.output_file import check_writable, replacing
from grip_edge.runtime.views import PAPER, image_views, on_one_page

_SIDE_PX = 900  # the enlarged image is at least about this wide
_DIMMED = 0.33  # brightness left to dropped patches
_OUTLINE = (255, 196, 0)


def draw_kept(
    source: ImageSource, manifest: Manifest, kept_indices: Sequence[int], caption: str | None = None
) -> Image.Image:
    """``kept_indices`` are places among the image's visual tokens; ``caption`` goes below the picture."""
    views = image_views(open_image(source), manifest, _SIDE_PX)
    picture = on_one_page([dimmed(view.picture, view.chosen(kept_indices)) for view in views])
    return picture if caption is None else _with_caption(picture, caption)


def dimmed(seen: Image.Image, grid: NDArray[np.bool_]) -> Image.Image:
    """grid bool [rows, columns], spread over the picture: clear where it is true."""
    mask = Image.fromarray(np.where(grid, 255, 0).astype(np.uint8)).resize(seen.size, Image.Resampling.NEAREST)
    return outlined(Image.composite(seen, seen.point(lambda level: int(level * _DIMMED)), mask), grid)


def outlined(picture: Image.Image, grid: NDArray[np.bool_]) -> Image.Image:
    """The picture itself, with lines drawn around what is true in the grid."""
    draw = ImageDraw.Draw(picture)
    patch_px = picture.width / grid.shape[1], picture.height / grid.shape[0]
    width = max(2, int(min(patch_px) / 24))
    for edge in _borders(grid):
        ends = (min(round(patch_px[axis % 2] * end), picture.size[axis % 2] - 1) for axis, end in enumerate(edge))
        draw.line(tuple(ends), fill=_OUTLINE, width=width)
    return picture


def check_kept_path(path: Path) -> None:
    """UserError unless a PNG can be written there; to be asked before the work."""
    if path.suffix.lower() != ".png":
        raise UserError(f"The kept-patches picture is a PNG; expected a name that ends in .png, got '{path}'.")
    check_writable(path)


def save_kept(path: Path, picture: Image.Image) -> None:
    """As PNG, complete or not at all."""
    with replacing(path) as partial:
        picture.save(partial, format="PNG")


def _borders(grid: NDArray[np.bool_]) -> Iterator[tuple[int, int, int, int]]:
    """Edges (x0, y0, x1, y1), in patches, between kept patches and dropped ones or the picture's edge."""
    framed = np.pad(grid, 1)
    for row, column in np.argwhere(framed[1:, :] != framed[:-1, :]):
        yield column - 1, row, column, row
    for row, column in np.argwhere(framed[:, 1:] != framed[:, :-1]):
        yield column, row - 1, column, row


def _with_caption(picture: Image.Image, caption: str) -> Image.Image:
    strip = text_strip(caption, picture.width, max(14, picture.width // 40))
    page = Image.new("RGB", (picture.width, picture.height + strip.height), PAPER)
    page.paste(picture, (0, 0))
    page.paste(strip, (0, picture.height))
    return page
