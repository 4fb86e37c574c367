"""Lines of text on pictures, wrapped to a width."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from grip_edge.runtime.views import PAPER

INK = (236, 236, 236)
_LINE_HEIGHT = 1.4


def text_strip(text: str, width_px: int, size_px: int) -> Image.Image:
    """As high as the text needs."""
    font = ImageFont.load_default(size_px)
    lines = wrapped(text, font, width_px - 2 * size_px)
    strip = Image.new("RGB", (width_px, round(_LINE_HEIGHT * size_px * len(lines) + size_px)), PAPER)
    draw = ImageDraw.Draw(strip)
    place = (size_px, size_px // 2)
    draw.multiline_text(place, "\n".join(lines), fill=INK, font=font, spacing=(_LINE_HEIGHT - 1) * size_px)
    return strip


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: float) -> list[str]:
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
