"""A graph run over many inputs, piece by piece: each weight is read once, whatever the number of inputs.

Between two pieces, memory holds what the next ones read of every input. An observer sees inner values as they are made
and is told when a piece is done, so that it can finish with the layers in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from grip_edge.export.streamed_graph import graph_pieces, needed_after, piece_options

Array = NDArray[Any]
Feeds = Mapping[str, Array]


class Observer(Protocol):
    """``watched`` are names of values in the graph."""

    @property
    def watched(self) -> Collection[str]: ...

    def see(self, name: str, array: Array) -> None: ...

    def piece_done(self) -> None: ...


def run_over(
    path: Path,
    config: Mapping[str, str],
    feeds: Sequence[Feeds],
    outputs: Sequence[str] | None,
    observer: Observer | None = None,
) -> list[dict[str, Array]]:
    """The outputs of that name (None: all) for each of the inputs."""
    model = onnx.load(path, load_external_data=False)
    wanted = [output.name for output in model.graph.output] if outputs is None else outputs
    watched = set(observer.watched) if observer else set()
    options = piece_options(path, config)
    pieces = list(graph_pieces(model, {*wanted, *watched}))
    values: list[dict[str, Array]] = [dict(feed) for feed in feeds]
    for index, piece in enumerate(pieces):
        still_needed = needed_after(pieces, index, wanted)
        session = piece.open(values[0], options)
        for number, known in enumerate(values):
            made = piece.run(session, known)
            if observer:
                for name in watched & made.keys():
                    observer.see(name, np.asarray(made[name]))
            values[number] = {name: array for name, array in (known | made).items() if name in still_needed}
        if observer:
            observer.piece_done()
    return values
