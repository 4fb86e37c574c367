"""Makes the weights of a graph and writes them to its data file, one after the other.

While one is written and added to the file's SHA-256, the next ones are made, one per core and a few cores at most, and
that is what memory holds. Each finished weight is noted (``journal``); what a killed export has finished is checked and
kept.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import torch

from grip_edge.export.journal import Entry, Journal
from grip_edge.export.layout import Layout, Place
from grip_edge.export.weights import Part
from grip_edge.manifest import FileRecord

# Gets every weight when it is on disk.
Written = Callable[[Place], None]

_READ_BYTES = 1 << 22

# Each maker holds the largest weights' worth of memory.
_MOST_MAKERS = 4


def write_weights(layout: Layout, folder: Path, journal: Journal, written: Written) -> FileRecord:
    """Writes or completes the data file; its record comes without reading the file again."""
    path = folder / layout.data_file
    path.touch()
    with path.open("r+b") as file:
        digest, done = _finished(layout, file, journal)
        journal.keep(layout.data_file, done)
        file.seek(layout.places[done - 1].end_byte if done else 0)
        file.truncate()
        for place in layout.places[:done]:
            written(place)
        writer = _Writer(file, digest, journal, layout.data_file, written)
        for place, tensor in _made(_batches(layout.places[done:])):
            writer.write(place, tensor)
    return FileRecord(layout.data_file, layout.data_bytes, digest.hexdigest())


def _batches(places: Sequence[Place]) -> Iterator[tuple[Place, ...]]:
    """Weights that are parts of one computation are made together."""

    def computation(place: Place) -> int:
        make = place.weight.make
        return id(make.of if isinstance(make, Part) else place)

    for _, batch in itertools.groupby(places, computation):
        yield tuple(batch)


def _made(batches: Iterable[tuple[Place, ...]]) -> Iterator[tuple[Place, torch.Tensor]]:
    """The weights in order; as many batches as there are makers are being made or wait to be written."""
    makers = min(os.cpu_count() or 1, _MOST_MAKERS)
    waiting: deque[tuple[tuple[Place, ...], Future[list[torch.Tensor]]]] = deque()
    with ThreadPoolExecutor(makers) as executor:
        for batch in batches:
            if len(waiting) == makers:
                yield from _finished_batch(*waiting.popleft())
            waiting.append((batch, executor.submit(_make, batch)))
        while waiting:
            yield from _finished_batch(*waiting.popleft())


def _make(batch: tuple[Place, ...]) -> list[torch.Tensor]:
    return [place.weight.make().contiguous() for place in batch]


def _finished_batch(
    batch: tuple[Place, ...], future: Future[list[torch.Tensor]]
) -> Iterator[tuple[Place, torch.Tensor]]:
    tensors = future.result()
    for place in batch:
        yield place, tensors.pop(0)


class _Writer:
    def __init__(
        self, file: BinaryIO, digest: hashlib._Hash, journal: Journal, data_file: str, written: Written
    ) -> None:
        self._file = file
        self._digest = digest
        self._journal = journal
        self._data_file = data_file
        self._written = written

    def write(self, place: Place, tensor: torch.Tensor) -> None:
        data = tensor.reshape(-1).view(torch.uint8).numpy().data  # [W,1] may be contiguous with a last stride of W
        if len(data) != place.weight.nbytes:
            raise RuntimeError(f"weight '{place.name}' came with {len(data)} bytes, {place.weight.nbytes} were planned")
        for piece in (bytes(place.start_byte - self._file.tell()), data):
            self._file.write(piece)
            self._digest.update(piece)
        self._file.flush()
        sha256 = self._digest.copy().hexdigest()
        self._journal.add(Entry(self._data_file, place.name, place.weight.recipe, place.end_byte, sha256))
        self._written(place)


def _finished(layout: Layout, file: BinaryIO, journal: Journal) -> tuple[hashlib._Hash, int]:
    """The sum over the weights that are in the file already, as they would be written now, and how many these are."""
    digest = hashlib.sha256()
    done = 0
    for place, entry in zip(layout.places, journal.entries(layout.data_file), strict=False):
        planned = (place.name, place.weight.recipe, place.end_byte)
        if planned != (entry.name, entry.recipe, entry.end_byte):
            break
        longer = digest.copy()
        _update(longer, file, place.end_byte - file.tell())
        if longer.hexdigest() != entry.sha256:
            break
        digest, done = longer, done + 1
    return digest, done


def _update(digest: hashlib._Hash, file: BinaryIO, count: int) -> None:
    while count > 0 and (piece := file.read(min(count, _READ_BYTES))):
        digest.update(piece)
        count -= len(piece)
