"""``grip-edge compare``: ratios of latency reports, and an exit code for regressions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grip_edge.errors import UserError
from grip_edge.reporting.comparison import CONDITIONS, METRICS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from grip_edge.report import LatencyReport
    from grip_edge.reporting.bootstrap import Ratio
    from grip_edge.reporting.comparison import Comparison

REGRESSION_EXIT_CODE = 1
_TABLE_COLUMNS = 160


@click.command()
@click.argument("reports", nargs=-1, metavar="FIRST.json OTHER.json...")
@click.option(
    "--fail-above",
    metavar="PERCENT",
    help="Exit code 1 if a metric got slower by more than this, as in 5%, and its interval lies above 1.",
)
@click.option(
    "--metric",
    "metrics",
    type=click.Choice(METRICS),
    multiple=True,
    default=("ttft", "tpot"),
    show_default=True,
    help="What --fail-above looks at; may be given several times.",
)
@click.option(
    "--despite",
    type=click.Choice(tuple(CONDITIONS)),
    multiple=True,
    help="Compare although this condition differs; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
@click.pass_context
def compare(
    ctx: click.Context,
    reports: tuple[str, ...],
    fail_above: str | None,
    metrics: tuple[str, ...],
    despite: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare reports of  grip-edge bench --format json  with the FIRST one; ratios above 1 are slower.

    \b
    Example:
      grip-edge compare before.json after.json --fail-above 5%
      grip-edge compare fp32.json int8.json int4.json
    """
    from grip_edge.reporting.comparison import compare as compare_reports
    from grip_edge.reporting.comparison import regressions

    if len(reports) < 2:
        raise UserError(f"Two or more reports are compared; got {len(reports)}.")
    limit = None if fail_above is None else parse_percent(fail_above)
    first, *others = (_read(Path(name)) for name in reports)
    compared = {name: compare_reports(first, other, despite) for name, other in zip(reports[1:], others, strict=True)}
    slower = {} if limit is None else {name: regressions(one, limit, metrics) for name, one in compared.items()}
    if as_json:
        documents = {
            name: dataclasses.asdict(one) | {"regressions": slower.get(name)} for name, one in compared.items()
        }
        click.echo(json.dumps({"first": reports[0], "compared": documents}, indent=2))
    else:
        _print(reports[0], compared)
    for name, lines in slower.items():
        for line in lines:
            click.echo(f"{name}: slower: {line}", err=True)
    if any(slower.values()):
        ctx.exit(REGRESSION_EXIT_CODE)


def parse_percent(text: str) -> float:
    """ "5%" is 0.05."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf") or not text.strip().endswith("%"):
        raise UserError(f"--fail-above is a percentage such as 5%; got '{text}'.")
    return value / 100.0


def _read(path: Path) -> LatencyReport:
    from grip_edge.report import LatencyReport

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' cannot be read ({error}); expected a report in JSON.") from None
    return LatencyReport.from_json(text, str(path))


def _print(first: str, compared: dict[str, Comparison]) -> None:
    from rich.console import Console

    console = Console(highlight=False, width=None if Console().is_terminal else _TABLE_COLUMNS)
    for name, comparison in compared.items():
        console.print(_table(f"{name} over {first}", comparison))
        for difference in comparison.despite:
            console.print(f"CAUTION, conditions differ: {difference}", style="bold red")
        for difference in comparison.mentioned:
            console.print(f"differs: {difference}", style="dim")
    console.print(
        "Ratios of medians with 95 % bootstrap intervals over requests; they cover the noise within each run, not "
        "between runs.",
        style="dim",
    )


def _table(title: str, comparison: Comparison) -> RenderableType:
    from rich.table import Table

    table = Table("budget", "kept", "clients", title=title, title_justify="left", header_style="dim")
    for metric in (*METRICS, "peak memory"):
        table.add_column(metric, justify="right")
    for row in comparison.rows:
        cells = [_cell(row.ratios[metric]) for metric in METRICS]
        memory = "" if row.peak_host_ratio is None else f"{row.peak_host_ratio:.3f}"
        table.add_row(row.budget, f"{row.kept_tokens}/{row.visual_tokens}", str(row.concurrency), *cells, memory)
    return table


def _cell(ratio: Ratio) -> str:
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
