"""``grip-edge export``: a checkpoint and its scorer become a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from grip_edge.bundle import DEFAULT_BUNDLE
from grip_edge.errors import MissingExtraError
from grip_edge.export.options import PRECISIONS, TARGETS, ExportOptions

if TYPE_CHECKING:
    from grip_edge.bundle import Bundle

# What the extra ``export`` brings.
_EXTRA_PACKAGES = ("huggingface_hub", "onnx", "onnx_ir", "onnxscript", "safetensors", "torch", "transformers")


@click.command()
@click.option("--model", required=True, help="A name from 'grip-edge models', or a folder in Hugging Face format.")
@click.option("--budget-range", required=True, metavar="LOW,HIGH", help="Budgets to serve, as ratios or token counts.")
@click.option("--scorer", type=click.Path(path_type=Path), help="Folder of a trained scorer; default: the model's own.")
@click.option("--target", default=TARGETS[0], show_default=True, help=f"One of: {', '.join(TARGETS)}.")
@click.option("--precision", default=PRECISIONS[0], show_default=True, help=f"One of: {', '.join(PRECISIONS)}.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=DEFAULT_BUNDLE, show_default=True, help="Folder to write."
)
@click.option("--force", is_flag=True, help="Replace a bundle that is already there.")
def export(
    model: str, budget_range: str, scorer: Path | None, target: str, precision: str, out: Path, force: bool
) -> None:
    """Write a bundle: four ONNX graphs with the budget as an input, compared with transformers at the end.

    \b
    Example:
      grip-edge export --model llava-tiny --budget-range 0.1,0.5
    """
    options = ExportOptions(model, budget_range, scorer, out, target, precision, force)
    bundle = _export_with_progress(options)
    _print_summary(bundle)


def _export_with_progress(options: ExportOptions) -> Bundle:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Loading PyTorch", total=1.0)
        try:
            from grip_edge.export.exporter import export_bundle
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _EXTRA_PACKAGES:
                raise
            raise MissingExtraError(package, "export") from None
        return export_bundle(options, lambda step, done: progress.update(task, description=step, completed=done))


def _print_summary(bundle: Bundle) -> None:
    from rich.console import Console
    from rich.table import Table

    manifest = bundle.manifest
    files = Table("file", "MB")
    files.columns[1].justify = "right"
    for record in manifest.files:
        files.add_row(record.path, f"{record.bytes / 1e6:.2f}")
    files.add_section()
    files.add_row("total", f"{bundle.total_bytes / 1e6:.2f}")

    parity = Table("kept tokens", "logits: max diff", "mean diff", "tokens", "kept set", title="Against transformers")
    for result in manifest.parity:
        parity.add_row(
            f"{result.budget_tokens} of {manifest.model.vision.visual_tokens}",
            f"{result.logits_max_difference:.1e}",
            f"{result.logits_mean_difference:.1e}",
            "equal" if result.tokens_equal else "differ",
            "equal" if result.kept_sets_equal else "differ",
        )
    console = Console(highlight=False)
    click.echo(f"{bundle.folder}: {manifest.model.name}, {manifest.target}, {manifest.precision}")
    console.print(files)
    console.print(parity)
    console.print(f"Budgets served: {manifest.budget_range}, and 1.0.")
    option = "" if str(bundle.folder) == DEFAULT_BUNDLE else f" --bundle {bundle.folder}"
    console.print("Next:")
    click.echo(f"  grip-edge infer IMAGE QUESTION --budget {manifest.budget_range.max_tokens}{option}")
