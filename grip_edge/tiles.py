"""An image of any size as tiles: one small view of the whole, then the picture at high resolution, cut into squares.

LLaVA-NeXT and LLaVA-OneVision choose, of a list of resolutions, the one that keeps most of the image, fit the image
into it with padding, and give each tile to the vision tower. The language model then reads

    the P patches of the small view | row of detail, newline | row of detail, newline | ...

where rows run across the tiles, and rows or columns that hold nothing but padding are left out. So the number N of
visual tokens depends on the image. Where LLaVA-OneVision has more detail than ``shrink_above`` tiles' worth, it mixes
neighbouring tokens (bilinearly, behind the projector) down to that.

All of this is a ``TilePlan``: for each token, which patches it is made of and in which shares. The plan depends on the
image's size alone, is made on the device, and is an input of ``select.onnx``; so patches that no kept token needs are
never projected. Shapes: A tiles, P patches of each, L tokens made of patches, M patches in each of these (1, or 4
where tokens are mixed), N = L + newlines. Sizes are (height, width), as in transformers.

Not here: pixels (``runtime.preprocess``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Above this ratio of sides, LLaVA-OneVision mixes tokens.
_SHRINK_RATIO = 1.1

Size = tuple[int, int]


@dataclass(frozen=True)
class TilingSpec:
    """``resolutions`` in pixels, multiples of ``tile_px``; a tile has ``grid`` x ``grid`` patches. ``shrink_above``
    tiles are the most that are read without mixing; None where the model never mixes.
    """

    resolutions: tuple[Size, ...]
    tile_px: int
    grid: int
    shrink_above: int | None = None

    @property
    def patches(self) -> int:
        return self.grid**2

    @property
    def max_tiles(self) -> int:
        """The small view among them."""
        return 1 + max(height * width for height, width in self.resolutions) // self.tile_px**2


@dataclass(frozen=True)
class TilePlan:
    """``sources`` int64 [L,M]: places in the patches of all tiles, one tile after the other; ``weights`` [L,M] their
    shares. ``order`` int64 [N]: which of the L each visual token is; L itself is the newline. ``detail`` is rows and
    columns of the detail view without newlines; it starts at token ``len(sources) - rows * columns``.
    """

    sources: NDArray[np.int64]
    weights: NDArray[np.float32]
    order: NDArray[np.int64]
    detail: Size

    @property
    def visual_tokens(self) -> int:
        return len(self.order)


def best_resolution(image: Size, resolutions: tuple[Size, ...]) -> Size:
    """The one that keeps most of the image's pixels; of equal ones that which wastes least; of these the first."""

    def merit(resolution: Size) -> tuple[int, int]:
        scale = min(resolution[1] / image[1], resolution[0] / image[0])
        used = min(int(image[1] * scale) * int(image[0] * scale), image[0] * image[1])
        return used, used - resolution[0] * resolution[1]

    return max(resolutions, key=merit)


def fitted_size(image: Size, frame: Size) -> Size:
    """The image's size when it fills the frame in one direction."""
    across, down = frame[1] / image[1], frame[0] / image[0]
    if across < down:
        return min(math.ceil(image[0] * across), frame[0]), frame[1]
    return frame[0], min(math.ceil(image[1] * down), frame[1])


def plan_tiles(image: Size, spec: TilingSpec) -> TilePlan:
    height, width = best_resolution(image, spec.resolutions)
    down, across = height // spec.tile_px, width // spec.tile_px
    side, patches = spec.grid, spec.patches
    numbers = patches + np.arange(down * across * patches, dtype=np.int64)
    frame = numbers.reshape(down, across, side, side).swapaxes(1, 2).reshape(down * side, across * side)
    places: NDArray[np.int64] = frame[_without_padding(image, frame.shape)]
    grid = (places.shape[0], places.shape[1])
    shrunk = _shrunk_size(grid, spec)
    if shrunk is None:
        detail, shares = places.reshape(-1, 1), np.ones((places.size, 1), np.float32)
    else:
        detail, shares = _mixed(places, shrunk)
    rows, columns = shrunk or grid
    small = np.repeat(np.arange(patches, dtype=np.int64)[:, None], detail.shape[1], axis=1)
    alone = np.zeros(small.shape, np.float32)
    alone[:, 0] = 1.0
    return TilePlan(
        sources=np.concatenate([small, detail]),
        weights=np.concatenate([alone, shares]),
        order=_order(patches, rows, columns),
        detail=(rows, columns),
    )


def max_visual_tokens(spec: TilingSpec) -> int:
    """What no image exceeds."""
    return max(
        _count(unpadded, spec)
        for height, width in spec.resolutions
        for unpadded in _unpadded_grids(height // spec.tile_px * spec.grid, width // spec.tile_px * spec.grid)
    )


def _count(unpadded: Size, spec: TilingSpec) -> int:
    rows, columns = _shrunk_size(unpadded, spec) or unpadded
    return spec.patches + rows * (columns + 1)


def _unpadded_grids(rows: int, columns: int) -> list[Size]:
    narrower = [(rows, width) for width in range(columns, -1, -2)]
    return narrower + [(height, columns) for height in range(rows, -1, -2)]


def _without_padding(image: Size, grid: Size) -> tuple[slice, slice]:
    """Rows and columns that hold a part of the image; equally many go on both sides."""
    rows, columns = grid
    if image[1] / image[0] > columns / rows:
        cut = (rows - int(round(image[0] * (columns / image[1]), 7))) // 2
        return slice(cut, rows - cut), slice(0, columns)
    cut = (columns - int(round(image[1] * (rows / image[0]), 7))) // 2
    return slice(0, rows), slice(cut, columns - cut)


def _shrunk_size(grid: Size, spec: TilingSpec) -> Size | None:
    if spec.shrink_above is None:
        return None
    ratio = math.sqrt(grid[0] * grid[1] / (spec.shrink_above * spec.patches))
    return (int(grid[0] // ratio), int(grid[1] // ratio)) if ratio > _SHRINK_RATIO else None


def _mixed(places: NDArray[np.int64], size: Size) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The four neighbours of each token of the smaller grid and their bilinear shares, each [rows * columns, 4]."""
    (top, bottom, lower), (left, right, righter) = (_neighbours(places.shape[axis], size[axis]) for axis in (0, 1))
    sources = [places[np.ix_(row, column)] for row in (top, bottom) for column in (left, right)]
    shares = [np.outer(down, across) for down in (1 - lower, lower) for across in (1 - righter, righter)]
    return np.stack(sources, axis=-1).reshape(-1, 4), np.stack(shares, axis=-1).reshape(-1, 4)


def _neighbours(count: int, shrunk: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Along one axis: the two neighbours of each new place, and the share of the second (corners not aligned)."""
    step = np.float32(count) / np.float32(shrunk)
    place = np.maximum(step * (np.arange(shrunk, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    first = np.minimum(place.astype(np.int64), count - 1)
    return first, np.minimum(first + 1, count - 1), (place - first).astype(np.float32)


def _order(patches: int, rows: int, columns: int) -> NDArray[np.int64]:
    """The small view, then each row of detail with the newline behind it."""
    made = patches + rows * columns
    detail = np.arange(patches, made, dtype=np.int64).reshape(rows, columns)
    lines = np.concatenate([detail, np.full((rows, 1), made, np.int64)], axis=1)
    return np.concatenate([np.arange(patches, dtype=np.int64), lines.ravel()])
