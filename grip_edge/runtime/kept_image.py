"""A picture of what the language model saw: kept patches clear and outlined, dropped ones dimmed.

Shown is the image as the model gets it (shortest edge resized, centre crop), enlarged to be good to look at. Of models
that cut images into tiles, the whole image is shown twice: with the patches of the small view, and with those of the
detail.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from grip_edge.errors import UserError
from grip_edge.manifest import Manifest
from grip_edge.runtime.image import ImageSource, open_image
from grip_edge.runtime.output_file import check_writable, replacing
from grip_edge.runtime.preprocess import Preprocessor
from grip_edge.tiles import TilingSpec, plan_tiles

_SIDE_PX = 900  # the enlarged image is at least about this wide
_DIMMED = 0.33  # brightness left to dropped patches
_OUTLINE = (255, 196, 0)
_GAP_PX = 12  # between two views
_PAPER, _INK = (20, 20, 24), (236, 236, 236)


def draw_kept(
    source: ImageSource, manifest: Manifest, kept_indices: Sequence[int], caption: str | None = None
) -> Image.Image:
    """``kept_indices`` are places among the image's visual tokens; ``caption`` goes below the picture."""
    image = open_image(source)
    if manifest.image.tiling is None:
        picture = _one_view(image, manifest, kept_indices)
    else:
        picture = _two_views(image, manifest.image.tiling, kept_indices)
    return picture if caption is None else _with_caption(picture, caption)


def _one_view(image: Image.Image, manifest: Manifest, kept_indices: Sequence[int]) -> Image.Image:
    rows, columns = manifest.model.vision.grid
    scale = max(1, round(_SIDE_PX / manifest.image.crop_px))
    patch_px = scale * manifest.model.vision.patch_px
    seen = Preprocessor(manifest.image).crop(image, scale).crop((0, 0, columns * patch_px, rows * patch_px))
    kept = np.zeros(rows * columns, bool)
    kept[list(kept_indices)] = True
    return _dimmed(seen, kept.reshape(rows, columns))


def _two_views(image: Image.Image, tiling: TilingSpec, kept_indices: Sequence[int]) -> Image.Image:
    """The small view's patches over the image, and those of the detail, side by side along the shorter edge."""
    plan = plan_tiles((image.height, image.width), tiling)
    kept = np.zeros(len(plan.sources) + 1, bool)
    kept[plan.order[list(kept_indices)]] = True  # the last one is the newline, which has no place in the picture
    small, detail = kept[: tiling.patches], kept[tiling.patches : -1]
    grids = [small.reshape(tiling.grid, tiling.grid), detail.reshape(plan.detail)]
    scale = _SIDE_PX / max(image.size)
    seen = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    views = [_dimmed(seen, grid) for grid in grids if grid.size]
    step = (0, seen.height + _GAP_PX) if seen.width > seen.height else (seen.width + _GAP_PX, 0)
    last = len(views) - 1
    page = Image.new("RGB", (seen.width + last * step[0], seen.height + last * step[1]), _PAPER)
    for number, view in enumerate(views):
        page.paste(view, (number * step[0], number * step[1]))
    return page


def _dimmed(seen: Image.Image, grid: NDArray[np.bool_]) -> Image.Image:
    """grid bool [rows, columns], spread over the picture."""
    mask = Image.fromarray(np.where(grid, 255, 0).astype(np.uint8)).resize(seen.size, Image.Resampling.NEAREST)
    picture = Image.composite(seen, seen.point(lambda level: int(level * _DIMMED)), mask)
    draw = ImageDraw.Draw(picture)
    patch_px = seen.width / grid.shape[1], seen.height / grid.shape[0]
    width = max(2, int(min(patch_px) / 24))
    for edge in _borders(grid):
        ends = (min(round(patch_px[axis % 2] * end), seen.size[axis % 2] - 1) for axis, end in enumerate(edge))
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


def _borders(grid: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Edges (x0, y0, x1, y1), in patches, between kept patches and dropped ones or the picture's edge."""
    framed = np.pad(grid, 1)
    for row, column in np.argwhere(framed[1:, :] != framed[:-1, :]):
        yield column - 1, row, column, row
    for row, column in np.argwhere(framed[:, 1:] != framed[:, :-1]):
        yield column, row - 1, column, row


def _with_caption(picture: Image.Image, caption: str) -> Image.Image:
    size_px = max(14, picture.width // 40)
    font = ImageFont.load_default(size_px)
    lines = _wrapped(caption, font, picture.width - 2 * size_px)
    strip_px = round(1.4 * size_px * len(lines) + size_px)
    page = Image.new("RGB", (picture.width, picture.height + strip_px), _PAPER)
    page.paste(picture, (0, 0))
    place = (size_px, picture.height + size_px // 2)
    ImageDraw.Draw(page).multiline_text(place, "\n".join(lines), fill=_INK, font=font, spacing=0.4 * size_px)
    return page


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: float) -> list[str]:
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width_px:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines
