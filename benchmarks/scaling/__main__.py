"""The command; what it does stands in the package's docstring."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from benchmarks.choosing import named
from benchmarks.peers.shape import SHAPES
from benchmarks.scaling.axes import all_axes
from benchmarks.scaling.models import prepare
from benchmarks.scaling.plot import write_plot
from benchmarks.scaling.report import PICTURE, measured, write_report
from benchmarks.scaling.rounds import Plan, run_rounds


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--only", help="Axes, by name, separated by commas; default: all.")
@click.option("--rounds", default=Plan.rounds, show_default=True)
@click.option("--repeats", default=Plan.repeats, show_default=True, help="Requests per turn, after one to warm up.")
@click.option("--threads", default=Plan.threads, show_default=True)
@click.option("--others", default=Plan.others, show_default=True, help="Share of the machine that others may take.")
@click.option("--patience", default=Plan.patience_s, show_default=True, help="Seconds to wait for that, for each turn.")
@click.option("--minutes", type=float, help="Begin no turn after so many minutes of measuring.")
@click.option("--shape", "shape_name", type=click.Choice(list(SHAPES)), default="yardstick", show_default=True)
@click.option("--prepare-only", is_flag=True, help="Write and export the models; no measuring.")
@click.option("--report-only", is_flag=True, help="Write the report of the turns that are there.")
def main(
    folder: Path,
    only: str | None,
    rounds: int,
    repeats: int,
    threads: int,
    others: float,
    patience: float,
    minutes: float | None,
    shape_name: str,
    prepare_only: bool,
    report_only: bool,
) -> None:
    """Measure how grip-edge's costs grow, in FOLDER, and write the report there."""
    axes = named(all_axes(shape_name), only, "axis")
    if not report_only:
        prepare(folder, shape_name, {point.model for axis in axes for point in axis.points}, _say)
    if not (prepare_only or report_only):
        run_rounds(folder, axes, Plan(rounds, repeats, threads, others, patience, minutes), _say)
    if not prepare_only:
        found = [one for one in (measured(folder, axis, others) for axis in axes) if one.rows]
        write_report(folder, found)
        write_plot(found, folder / PICTURE)
        _say(f"Report: {folder / 'scaling.md'}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
