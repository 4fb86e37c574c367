"""What the workers share: the request's parts, its clock, and greedy decoding for peers that are driven by hand.

Needs numpy and Pillow. Settings come as one JSON document:

    folder     the converted model        threads    how many
    picture    the image file             precision  what the contestant asks of its runtime
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers.protocol import Message
from benchmarks.peers.shape import IMAGE_TOKEN, QUESTION, TEMPLATE

CHECKED_TOKENS = 8
CHECKED_TEXT = 64  # tokens in the image's place, where peers without eyes are compared

_FIRST_BYTE_ID, _BYTES = 4, 256  # behind the four special tokens
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)

Floats = NDArray[np.float32]


def prompt_text() -> str:
    return TEMPLATE.format(question=QUESTION)


def prompt_ids() -> tuple[list[int], list[int]]:
    """Token ids before and after the image, as the yardstick's tokenizer gives them."""
    before, after = prompt_text().split(IMAGE_TOKEN)
    return [1, *_byte_ids(before)], _byte_ids(after)


def text_ids(count: int) -> list[int]:
    """The prompt with ``count`` tokens of text in the image's place, for peers that read no images."""
    before, after = prompt_ids()
    return [*before, *(_FIRST_BYTE_ID + 37 * place % _BYTES for place in range(count)), *after]


def _byte_ids(text: str) -> list[int]:
    """The tokenizer sorts the bytes by the character that stands for them: printable ASCII first, in order."""
    places = {chr(code): place for place, code in enumerate(range(33, 127))}
    shifted = sorted(_SHIFTED.values())
    beyond = sum(1 for code in range(127, 256) if code not in _SHIFTED)
    ids = []
    for byte in text.encode("ascii"):
        if chr(byte) in places:
            ids.append(_FIRST_BYTE_ID + places[chr(byte)])
        else:
            ids.append(_FIRST_BYTE_ID + len(places) + beyond + shifted.index(_SHIFTED[byte]))
    return ids


# Bytes that are no printable character of Latin-1 are shown by one from 256 on (GPT-2's byte-level alphabet).
_SHIFTED = {
    byte: 256 + place
    for place, byte in enumerate(
        code for code in range(256) if not (33 <= code < 127 or (161 <= code < 256 and code != 173))
    )
}


def pixels(picture: Path) -> Floats:
    """[1,3,H,W]; the picture has the tower's size already."""
    with Image.open(picture) as image:
        levels = np.asarray(image.convert("RGB"), np.float32)
    return np.ascontiguousarray(((levels / 255 - _MEAN) / _STD).transpose(2, 0, 1)[None])


def kept_rows(visual_tokens: int, kept: int) -> NDArray[np.int64]:
    """Evenly spaced: for peers that choose nothing, the tokens they are given."""
    return np.arange(kept) * visual_tokens // kept


class Clock:
    """Starts with the request."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._vision = self._first = 0.0

    def vision_done(self) -> None:
        self._vision = time.monotonic()

    def token(self) -> None:
        """The first call counts."""
        self._first = self._first or time.monotonic()

    def answer(self, tokens: list[int], prompt_tokens: int, vision_ms: float | None = None) -> Message:
        """``vision_ms`` where the peer measures it itself."""
        end = time.monotonic()
        if vision_ms is None and self._vision:
            vision_ms = 1000 * (self._vision - self._start)
        return {
            "vision_ms": vision_ms,
            "ttft_ms": 1000 * (self._first - self._start),
            "decode_ms": 1000 * (end - self._first),
            "first_token_at": self._first,
            "tokens": tokens,
            "prompt_tokens": prompt_tokens,
        }


def decode(clock: Clock, logits: Floats, step: Callable[[int], Floats], new_tokens: int) -> list[int]:
    """Greedy, from the prompt's last ``logits`` [V]; ``step`` takes a token to the next logits."""
    tokens = [int(np.argmax(logits))]
    clock.token()
    while len(tokens) < new_tokens:
        tokens.append(int(np.argmax(step(tokens[-1]))))
    return tokens


def checked(folder: Path, tokens: list[int], features: Any = None, logits: Any = None) -> Message:
    """Arrays go through files: ``features`` [N,D] as they enter the decoder, ``logits`` [V] at the prompt's end."""
    found: Message = {"tokens": tokens[:CHECKED_TOKENS], "features": None, "logits": None}
    for name, values in (("features", features), ("logits", logits)):
        if values is not None:
            path = folder / f"{name}.npy"
            np.save(path, np.asarray(values, np.float32))
            found[name] = str(path)
    return found


def versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
