"""``grip-edge bench``: measure latency by stage and budget."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grip_edge.bundle import DEFAULT_BUNDLE
from grip_edge.errors import UserError

if TYPE_CHECKING:
    from grip_edge.report import LatencyReport
    from grip_edge.runtime.bench import BenchSettings

_TABLE_COLUMNS = 200
_FORMATS = ("table", "md", "csv", "json", "html")


@click.command()
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True, help="Folder that grip-edge export made.")
@click.option(
    "--budgets",
    help="Comma-separated budgets, ratios or token counts.  [default: those of 0.1,0.25,0.5,1.0 in the bundle's range]",
)
@click.option("--image", type=click.Path(path_type=Path), help="Image to ask about.  [default: a made-up photograph]")
@click.option("--question", help="Question to ask about the image.  [default: a general one]")
@click.option(
    "--questions",
    type=click.Path(path_type=Path),
    help='JSONL file of lines {"image": ..., "question": ...} that take turns; images relative to the file.',
)
@click.option("--repeats", type=int, default=20, show_default=True, help="Measured requests per budget.")
@click.option("--warmups", type=int, default=3, show_default=True, help="Requests per budget before those.")
@click.option("--new-tokens", type=int, default=32, show_default=True, help="Tokens of every answer.")
@click.option("--threads", type=int, help="Threads of ONNX Runtime.  [default: its own choice]")
@click.option("--backend", help="What runs the graphs.  [default: the fastest that is here]")
@click.option("--concurrency", default="1", show_default=True, help="Clients at once, comma-separated, as in 1,2,4.")
@click.option("--target-ttft-ms", type=float, help="Say which budget holds this time to the first token.")
@click.option("--memory/--no-memory", default=True, show_default=True, help="Measure memory in processes of their own.")
@click.option("--energy/--no-energy", default=True, show_default=True, help="Measure energy, where there is a meter.")
@click.option("--ceiling/--no-ceiling", default=False, show_default=True, help="Measure what this CPU can do at best.")
@click.option("--samples", type=click.Path(path_type=Path), help="Write the raw samples to this JSONL file.")
@click.option(
    "--format",
    "style",
    type=click.Choice(_FORMATS),
    help="How to write the report.  [default: as the name given with --out ends, else table]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write to this file instead of the terminal.")
def bench(
    bundle: str,
    budgets: str | None,
    image: Path | None,
    question: str | None,
    questions: Path | None,
    repeats: int,
    warmups: int,
    new_tokens: int,
    threads: int | None,
    backend: str | None,
    concurrency: str,
    target_ttft_ms: float | None,
    memory: bool,
    energy: bool,
    ceiling: bool,
    samples: Path | None,
    style: str | None,
    out: Path | None,
) -> None:
    """Measure latency by stage at several budgets: cold start and warm-ups apart, budgets interleaved, tails shown.

    \b
    Example:
      grip-edge bench --budgets 0.1,0.25,1.0 --repeats 100 --target-ttft-ms 50 --out latency.html
      grip-edge bench --questions questions.jsonl --concurrency 1,4 --out latency.json
    """
    from grip_edge.reporting.samples import to_jsonl
    from grip_edge.runtime.bench import QUESTION, BenchSettings
    from grip_edge.runtime.output_file import check_writable, replacing

    for path in (out, samples):
        if path is not None:
            check_writable(path)
    if questions is not None and question is not None:
        raise UserError("--questions brings its own questions; leave out --question.")
    settings = BenchSettings(
        bundle=Path(bundle),
        budgets=tuple(budgets.split(",")) if budgets is not None else (),
        image=image,
        question=QUESTION if question is None else question,
        questions=questions,
        repeats=repeats,
        warmups=warmups,
        new_tokens=new_tokens,
        threads=threads,
        backend=backend,
        concurrency=_clients(concurrency),
        measure_memory=memory,
        measure_energy=energy,
        command=shlex.join(["grip-edge", *sys.argv[1:]]),
    )
    report = _measured(settings, target_ttft_ms, ceiling)
    if samples is not None:
        with replacing(samples) as partial:
            partial.write_text(to_jsonl(report), encoding="utf-8")
    _write(report, style or _style_of(out), out)


def _measured(settings: BenchSettings, target_ttft_ms: float | None, ceiling: bool) -> LatencyReport:
    """With all that is known beside the measurement: accuracy, ceilings, the verdict."""
    from dataclasses import replace

    from grip_edge.bundle import open_bundle
    from grip_edge.cli.progress import progress
    from grip_edge.reporting.accuracy import with_accuracy
    from grip_edge.reporting.verdict import verdict
    from grip_edge.runtime.bench import run_bench

    opened = open_bundle(settings.bundle)
    with progress() as on_step:
        report = run_bench(settings, on_step)
        report = replace(with_accuracy(report, opened.manifest), target_ttft_ms=target_ttft_ms)
        if ceiling:
            from grip_edge.cli.bench_ceilings import with_ceilings

            on_step("ceiling", 0, 1)
            report = with_ceilings(report, opened)
    return replace(report, verdict=verdict(report))


def _clients(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise UserError(f"--concurrency is a list of numbers such as 1,2,4; got '{text}'.") from None


def _style_of(out: Path | None) -> str:
    ending = "" if out is None else out.suffix.lower().removeprefix(".")
    return ending if ending in _FORMATS else "table"


def _write(report: LatencyReport, style: str, out: Path | None) -> None:
    from rich.console import Console

    from grip_edge.runtime.output_file import replacing

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
    if style == "html":
        from grip_edge.reporting.html import to_html

        return to_html(report)
    console = Console(force_terminal=colour, width=None if colour else _TABLE_COLUMNS, file=None)
    with console.capture() as captured:
        console.print(to_table(report))
    return captured.get()
