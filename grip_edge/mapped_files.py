"""Pages of weights that were read once and stay in memory for nothing, given back to the system. Linux.

A runtime maps a bundle's weights, reads them once to pack them in the order that its products want, and from then on
uses the packed copy; the pages that it has read still count as the process's. They are clean copies of a file, so to
give them back loses nothing: one that is read again comes from the file's cache. Mappings with a changed page are left
as they are. Elsewhere nothing is done.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_MAPS = Path("/proc/self/smaps")
_MADV_DONTNEED = 4  # of Linux
_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ +(/.*)")


class Mapping(NamedTuple):
    """``resident_bytes`` are those in memory, ``changed_bytes`` those of them that are no longer the file's."""

    start: int
    end: int
    path: str
    resident_bytes: int
    changed_bytes: int


def give_back_pages(folder: Path) -> None:
    """Of files in ``folder``."""
    if not _MAPS.is_file():
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for mapping in mappings_of(folder):
        if mapping.resident_bytes and not mapping.changed_bytes:
            madvise(mapping.start, mapping.end - mapping.start, _MADV_DONTNEED)


def mappings_of(folder: Path) -> Iterator[Mapping]:
    """This process's mappings of files in ``folder``."""
    inside = f"{folder.resolve()}/"
    head: re.Match[str] | None = None
    resident_bytes = 0
    for line in _MAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        name, _, value = line.partition(":")
        if name == "Rss":
            resident_bytes = _bytes(value)
        elif name == "Anonymous":
            if head is not None and head[3].startswith(inside):
                yield Mapping(int(head[1], 16), int(head[2], 16), head[3], resident_bytes, _bytes(value))
        elif line[0] in "0123456789abcdef":
            head = _HEAD.match(line)


def _bytes(value: str) -> int:
    """As in "  128 kB"."""
    return 1024 * int(value.split()[0])
