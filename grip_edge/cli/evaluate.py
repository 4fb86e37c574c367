"""``grip-edge evaluate``: accuracy of policies and bundles against budget and time, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from grip_edge.calibration.evaluation.report import EvaluationReport
from grip_edge.calibration.evaluation.report_formats import to_markdown
from grip_edge.cli.evaluation.request import EvaluationRequest
from grip_edge.cli.main import INTERRUPTED_EXIT_CODE

_SCORING_HELP = "exact, vqa, textvqa, pope, scienceqa or gqa."


@click.command()
@click.option("--model", help="A name from 'grip-edge models', or a folder in Hugging Face format.")
@click.option(
    "--policies",
    multiple=True,
    metavar="NAMES",
    help="Comma-separated policies; or a trained scorer as NAME=DIR, several training runs of it as NAME=DIR,DIR,DIR. "
    "May be repeated.",
)
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    metavar="[NAME=]DIR",
    help="A bundle to evaluate through ONNX Runtime. NAME is the policy inside, as in --policies; NAME:VARIANT tells "
    "several bundles of a policy apart. May be repeated.",
)
@click.option("--budgets", default="0.1,0.25,0.5", show_default=True, help="Ratios or token counts.")
@click.option("--data", default="scenes", show_default=True, help="scenes, scenes:PRESET, a .jsonl file or a folder.")
@click.option("--split", default="test", show_default=True, help="train, validation or test.")
@click.option("--images", type=int, help="How many, from the first on.  [default: 1000 scenes; all of a file]")
@click.option("--questions-per-image", type=int, help="At most so many.  [default: 5 of a scene; all of a file]")
@click.option("--scoring", default="exact", show_default=True, help=_SCORING_HELP)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the answers and the report.")
@click.option("--against", help="The policy that all others are compared with.  [default: the first trained one]")
@click.option("--latency", is_flag=True, help="Also measure each policy's bundle through ONNX Runtime; see --bundle.")
@click.option("--flops", is_flag=True, help="Also count the FLOPs in each policy's bundle.")
@click.option("--requests", default=30, show_default=True, help="Measured requests per policy and budget.")
@click.option("--precision", default="fp32", show_default=True, help="Of PyTorch: fp32 or bf16.")
@click.option("--max-new-tokens", default=16, show_default=True, help="Longest answer.")
@click.option("--batch-images", default=16, show_default=True, help="Images that are answered together.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@click.option("--no-plots", is_flag=True, help="Write no pictures.")
@click.option("--force", is_flag=True, help="Throw away the answers in --out and start anew.")
def evaluate(**options: Any) -> None:
    """Measure accuracy of policies and bundles by budget, with intervals; and accuracy against time.

    \b
    All policies answer the same questions. Answers are kept in --out: a run that was interrupted goes on where it was,
    and the same command with another --scoring scores the same answers. With --latency or --flops, a policy that is
    given no --bundle is exported first.
    Examples:
      grip-edge evaluate --model llava-tiny --policies random,divprune,grip --budgets 0.1,0.25 --out report
      grip-edge evaluate --model llava-tiny --policies cdpruner --policies grip=run0,run1,run2 --latency --out report
      grip-edge evaluate --model llava-tiny --policies grip --bundle grip:fp32=a --bundle grip:int8=b --out report
      grip-edge evaluate --bundle grip-bundle --data questions.jsonl --scoring vqa --out report
    """
    request = EvaluationRequest(**options)
    try:
        report = _run_with_progress(request)
    except KeyboardInterrupt:
        click.echo("grip-edge: interrupted; the same command goes on where it was", err=True)
        click.get_current_context().exit(INTERRUPTED_EXIT_CODE)
    click.echo(to_markdown(report), nl=False)
    click.echo(f"Written to {request.out}: {', '.join(sorted(path.name for path in request.out.iterdir()))}", err=True)


def _run_with_progress(request: EvaluationRequest) -> EvaluationReport:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from grip_edge.cli.evaluation.run import run_evaluation

    columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Loading", total=1)

        def say(doing: str, done: int, total: int) -> None:
            if progress.tasks[0].description != doing:
                progress.reset(task, description=doing, total=total, completed=done)
            progress.update(task, total=total, completed=done)

        return run_evaluation(request, say)
