"""What an export tells while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from grip_edge.export.layout import Layout, Place


@dataclass(frozen=True)
class Progress:
    """``step`` is what is being done; ``fraction`` of the whole was done before it. The counts are of weights."""

    step: str
    fraction: float
    bytes_done: int = 0
    bytes_total: int = 0
    weights_done: int = 0
    weights_total: int = 0


Report = Callable[[Progress], None]


class Meter:
    """Counts the weights of all graphs; they take the part of the work between two fractions of the whole."""

    def __init__(self, layouts: tuple[Layout, ...], report: Report, start: float, end: float) -> None:
        self.bytes_total = sum(layout.data_bytes for layout in layouts)
        self._weights_total = sum(len(layout.places) for layout in layouts)
        self._report = report
        self._start, self._end = start, end
        self._bytes_done = self._weights_done = 0
        self._graph = ""

    def begin(self, layout: Layout) -> None:
        self._graph = layout.graph_file
        self._tell()

    def written(self, place: Place) -> None:
        self._bytes_done += place.weight.nbytes
        self._weights_done += 1
        self._tell()

    def _tell(self) -> None:
        share = self._bytes_done / max(self.bytes_total, 1)
        self._report(
            Progress(
                f"Writing {self._graph}",
                self._start + (self._end - self._start) * min(share, 1.0),
                self._bytes_done,
                self.bytes_total,
                self._weights_done,
                self._weights_total,
            )
        )
