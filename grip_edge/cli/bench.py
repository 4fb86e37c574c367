"""``grip-edge bench``: measure latency by stage and budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from grip_edge.bundle import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from grip_edge.report import LatencyReport

_TABLE_COLUMNS = 160


@click.command()
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True, help="Folder that grip-edge export made.")
@click.option(
    "--budgets",
    help="Comma-separated budgets, ratios or token counts.  [default: those of 0.1,0.25,0.5,1.0 in the bundle's range]",
)
@click.option("--image", type=click.Path(path_type=Path), help="Image to ask about.  [default: a made-up photograph]")
@click.option("--repeats", type=int, default=20, show_default=True, help="Measured requests per budget.")
@click.option(
    "--format", "style", type=click.Choice(["table", "md", "csv", "json"]), default="table", show_default=True
)
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file instead of the terminal.")
def bench(bundle: str, budgets: str | None, image: Path | None, repeats: int, style: str, out: Path | None) -> None:
    """Measure latency by stage at several budgets: warm-ups apart, budgets interleaved, medians and tails.

    \b
    Example:
      grip-edge bench --budgets 0.1,0.25,1.0 --repeats 50 --format md --out latency.md
    """
    from rich.console import Console
    from rich.progress import Progress

    from grip_edge.runtime.bench import BenchSettings, run_bench
    from grip_edge.runtime.output_file import check_writable, replacing

    if out is not None:
        check_writable(out)
    wanted = tuple(budgets.split(",")) if budgets is not None else ()
    settings = BenchSettings(Path(bundle), wanted, image, repeats=repeats)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("bench", total=None)
        report = run_bench(settings, lambda done, total: progress.update(task, completed=done, total=total))
    if out is None:
        click.echo(_rendered(report, style, colour=Console().is_terminal), nl=False)
        return
    with replacing(out) as partial:
        partial.write_text(_rendered(report, style, colour=False), encoding="utf-8")


def _rendered(report: LatencyReport, style: str, colour: bool) -> str:
    from rich.console import Console

    from grip_edge.report_formats import to_csv, to_markdown, to_table

    if style == "json":
        return report.to_json()
    if style == "csv":
        return to_csv(report)
    if style == "md":
        return to_markdown(report)
    console = Console(force_terminal=colour, width=None if colour else _TABLE_COLUMNS, file=None)
    with console.capture() as captured:
        console.print(to_table(report))
    return captured.get()
