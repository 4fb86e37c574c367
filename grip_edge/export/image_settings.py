"""Image preprocessing as the checkpoint's processor does it, frozen at export; or one line on what the device has not.

Not here: doing it (``runtime.preprocess``), which tiles an image becomes (``grip_edge.tiles``).
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.manifest import ImageSpec

_HINT = "the image processor and config.json are of different models"


def freeze_image(checkpoint: Checkpoint, processor: Any) -> ImageSpec:
    """``tiling`` where the family cuts tiles; ``stretch`` where the processor resizes to a square without cropping."""
    settings = processor.image_processor
    side_px = checkpoint.vision.image_side_px
    if not (settings.do_resize and settings.do_rescale and settings.do_normalize):
        raise UserError("The image processor skips a step; expected resize, rescale and normalise.")
    if abs(settings.rescale_factor * 255 - 1) > 1e-6:
        raise UserError(f"The image processor's rescale_factor is {settings.rescale_factor}; expected 1/255.")
    if checkpoint.tiling is not None:
        _check_tiles(checkpoint, processor)
    stretch = checkpoint.tiling is not None or _stretches(settings, side_px)
    return ImageSpec(
        resize_px=side_px if stretch else _shortest_edge(settings, side_px),
        crop_px=side_px,
        resample=Image.Resampling(settings.resample).name.lower(),
        mean=_three(settings.image_mean),
        std=_three(settings.image_std),
        stretch=stretch,
        tiling=checkpoint.tiling,
    )


def _stretches(settings: Any, side_px: int) -> bool:
    """Height and width given, nothing cropped: the whole picture as a square."""
    if settings.size.get("height") is None or settings.do_center_crop:
        return False
    _expect_square("resizes to", settings.size, side_px)
    return True


def _shortest_edge(settings: Any, side_px: int) -> int:
    if settings.size.get("shortest_edge") is None:
        raise UserError(f"The image processor resizes to {dict(settings.size)}; expected a shortest_edge.")
    if not settings.do_center_crop:
        raise UserError("The image processor skips a step; expected resize, centre crop, rescale and normalise.")
    _expect_square("crops to", settings.crop_size, side_px)
    shortest = int(settings.size["shortest_edge"])
    if shortest < side_px:
        raise UserError(f"The image processor resizes to {shortest} px, below its crop.")
    return shortest


def _check_tiles(checkpoint: Checkpoint, processor: Any) -> None:
    """Small view and tiles come out of the processor at the tower's size, whatever steps it names."""
    settings, side_px = processor.image_processor, checkpoint.vision.image_side_px
    if settings.size.get("height") is not None:
        _expect_square("resizes to", settings.size, side_px)
    elif settings.size.get("shortest_edge") != side_px:
        found = settings.size.get("shortest_edge")
        raise UserError(f"The image processor resizes to {found} px; the vision tower reads {side_px} px.")
    if settings.do_center_crop:
        _expect_square("crops to", settings.crop_size, side_px)
    for what, found, expected in (
        ("image_grid_pinpoints", settings.image_grid_pinpoints, checkpoint.config.image_grid_pinpoints),
        (
            "vision_aspect_ratio",
            getattr(processor, "vision_aspect_ratio", None),
            getattr(checkpoint.config, "vision_aspect_ratio", None),
        ),
    ):
        if _plain(found) != _plain(expected):
            raise UserError(f"The processor's {what} is {found}, that of config.json {expected}; {_HINT}.")


def _plain(value: Any) -> Any:
    return [list(size) for size in value] if isinstance(value, (list, tuple)) else value


def _expect_square(does: str, size: Any, side_px: int) -> None:
    if (size["height"], size["width"]) != (side_px, side_px):
        found = f"{size['height']}x{size['width']}"
        raise UserError(f"The image processor {does} {found} px; the vision tower reads {side_px}x{side_px} px.")


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
