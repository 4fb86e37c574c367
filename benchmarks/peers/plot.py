"""The picture: time to the first token and decoding speed as bars, for all visual tokens and a quarter of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.bars import OURS
from benchmarks.peers.contestants import Work
from benchmarks.peers.summary import Row

_OTHERS = "tab:gray"


def write_plot(work: Work, rows: Sequence[Row], path: Path) -> None:
    """Needs matplotlib (extra ``report``)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    full, pruned = work.budgets
    shown = [row for row in rows if full in row.ttft_ms and full in row.decode_tokens_per_sec]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 0.32 * len(shown) + 1.6), sharey=True)
    places = list(range(len(shown)))[::-1]
    for place, row in zip(places, shown, strict=True):
        colour = "tab:green" if row.peer == OURS else _OTHERS
        for kept, shade in ((full, 0.9), (pruned, 0.45)):
            time, speed = row.ttft_ms.get(kept), row.decode_tokens_per_sec.get(kept)
            height = 0.4 if kept == full else -0.4
            for axes, found in ((left, time), (right, speed)):
                if found is not None:
                    error = [[found.median - found.low], [found.high - found.median]]
                    axes.barh(place, found.median, height, align="edge", color=colour, alpha=shade, xerr=error)
    left.set_yticks(places, [row.name + ("" if row.contestant.sees else " (text)") for row in shown])
    left.set_xlabel(f"time to the first token, ms (upper bar {full} visual tokens, lower {pruned}); less is better")
    right.set_xlabel("decoding, tokens per second; more is better")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
