"""Pages of weights that were read once and stay in memory for nothing, given back to the system. Linux.

A runtime maps a bundle's weights, reads them once to pack them in the order that its products want, and from then on
uses the packed copy; the pages that it has read still count as the process's. They are clean copies of a file, so to
give them back loses nothing: one that is read again comes from the file's cache. Mappings with a changed page are left
as they are. Elsewhere nothing is done.

An address that is no longer the file's would be somebody's memory. So nothing is loaded while pages are given back, for
loading maps and unmaps many files, and each mapping is looked for once more.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_MAPS, _MAPPED = Path("/proc/self/smaps"), "/proc/self/map_files"
_MADV_DONTNEED = 4  # of Linux
_LOADING = threading.Lock()
_PAUSE_S = 0.1  # reading the list of mappings takes 4 to 18 ms
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
    madvise = ctypes.PyDLL(None).madvise  # which keeps the interpreter's lock
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with _LOADING:
        for start, end, _, resident_bytes, changed_bytes in mappings_of(folder):
            if resident_bytes and not changed_bytes and os.path.lexists(f"{_MAPPED}/{start:x}-{end:x}"):
                madvise(start, end - start, _MADV_DONTNEED)


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """While a runtime loads files of ``folder``; what it has read of them is given back at the end."""
    with _LOADING:
        yield
    give_back_pages(folder)


@contextmanager
def packing(folder: Path) -> Iterator[None]:
    """While a runtime packs weights one after the other, out of mappings that stay: what it has read is given back
    again and again, so that at no time all weights are in memory twice. A page that is still needed comes back.
    """
    ended = threading.Event()

    def give_back() -> None:
        while not ended.wait(_PAUSE_S):
            give_back_pages(folder)

    thread = threading.Thread(target=give_back, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        give_back_pages(folder)


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
