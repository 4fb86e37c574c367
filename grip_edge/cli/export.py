"""``grip-edge export``: a checkpoint and its scorer, or a policy that needs none, become a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from grip_edge.bundle import DEFAULT_BUNDLE, RESUME_NAME, partial_folder
from grip_edge.cli.extras import needs_extra
from grip_edge.cli.int4_options import int4_options
from grip_edge.export.options import ExportOptions
from grip_edge.export.precision import (
    CACHE_PRECISIONS,
    EMBEDDING_PRECISIONS,
    PRECISIONS,
    PrecisionOptions,
)
from grip_edge.export.targets.table import CPU, find_target, target_names
from grip_edge.policy_catalog import POLICY_SPECS

if TYPE_CHECKING:
    from grip_edge.bundle import Bundle
    from grip_edge.export.progress import Progress as ExportProgress

# What the extra ``export`` brings.
_EXTRA_PACKAGES = ("huggingface_hub", "onnx", "onnx_ir", "onnxscript", "safetensors", "torch", "transformers")

_POLICIES = [name for name, spec in POLICY_SPECS.items() if spec.exportable]


@click.command()
@click.option("--model", required=True, help="A name from 'grip-edge models', or a folder in Hugging Face format.")
@click.option("--budget-range", required=True, metavar="LOW,HIGH", help="Budgets to serve, as ratios or token counts.")
@click.option("--scorer", type=click.Path(path_type=Path), help="Folder of a trained scorer; default: the model's own.")
@click.option(
    "--policy", metavar="NAME", help=f"Select without training instead of by a scorer; one of: {', '.join(_POLICIES)}."
)
@click.option("--target", default=CPU.name, show_default=True, help=f"One of: {', '.join(target_names())}.")
@click.option("--precision", default=PRECISIONS[0], show_default=True, help=f"One of: {', '.join(PRECISIONS)}.")
@click.option("--lm-head-precision", help="The same for the LM head; default of quantised models: int8-weight.")
@click.option(
    "--embedding-precision",
    help=f"For the token embeddings, one of: {', '.join(EMBEDDING_PRECISIONS)}; default of quantised models: int8.",
)
@int4_options
@click.option(
    "--cache-precision",
    help=f"For keys and values with --target cpu, one of: {', '.join(CACHE_PRECISIONS)}; default of int4: fp16.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=DEFAULT_BUNDLE, show_default=True, help="Folder to write."
)
@click.option("--force", is_flag=True, help="Replace a bundle that is already there.")
def export(
    model: str,
    budget_range: str,
    scorer: Path | None,
    policy: str | None,
    target: str,
    precision: str,
    lm_head_precision: str | None,
    embedding_precision: str | None,
    int4_block: int | None,
    int4_symmetric: bool | None,
    cache_precision: str | None,
    out: Path,
    force: bool,
) -> None:
    """Write a bundle: four ONNX graphs with the budget as an input, compared with transformers at the end.

    \b
    Example:
      grip-edge export --model llava-tiny --budget-range 0.1,0.5
      grip-edge export --model llava-tiny --budget-range 0.1,0.5 --precision int8
      grip-edge export --model llava-tiny --budget-range 0.1,0.5 --precision fp16 --target jetpack-6.2
      grip-edge export --model llava-tiny --budget-range 0.1,0.5 --policy divprune --out divprune-bundle
    """
    formats = PrecisionOptions(
        precision, lm_head_precision, embedding_precision, int4_block, int4_symmetric, cache_precision
    )
    options = ExportOptions(model, budget_range, scorer, out, target, formats, force, policy)
    try:
        bundle = _export_with_progress(options)
    except KeyboardInterrupt:
        if (partial_folder(out) / RESUME_NAME).is_file():
            click.echo(f"Finished weights are kept in '{partial_folder(out)}'; the same command goes on.", err=True)
        raise
    _print_summary(bundle)


def _export_with_progress(options: ExportOptions) -> Bundle:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Loading PyTorch", total=1.0, amount="")
        with needs_extra("export", _EXTRA_PACKAGES):
            from grip_edge.export.exporter import export_bundle
        return export_bundle(
            options,
            lambda now: bar.update(task, description=now.step, completed=now.fraction, amount=_amount(now)),
        )


def _amount(progress: ExportProgress) -> str:
    if not progress.weights_total:
        return ""
    done, total = progress.bytes_done / 1e9, progress.bytes_total / 1e9
    return f"{done:.2f}/{total:.2f} GB, {progress.weights_done}/{progress.weights_total} weights"


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

    parity = Table(
        "kept tokens", "logits: max diff", "mean diff", "cosine", "tokens", "kept set", title="Against transformers"
    )
    for result in manifest.parity:
        parity.add_row(
            f"{result.budget_tokens} of {result.visual_tokens or manifest.model.vision.visual_tokens}",
            f"{result.logits_max_difference:.1e}",
            f"{result.logits_mean_difference:.1e}",
            "" if result.logits_cosine is None else f"{result.logits_cosine:.4f}",
            "equal" if result.tokens_equal else f"{result.tokens_agreeing} of {result.tokens_compared}",
            "equal" if result.kept_sets_equal else f"{100 * (result.kept_overlap or 0):.0f} % common",
        )
    console = Console(highlight=False)
    selector = manifest.scorer.name
    click.echo(f"{bundle.folder}: {manifest.model.name}, {selector}, {manifest.target}, {manifest.precision}")
    console.print(files)
    console.print(parity)
    console.print(f"Budgets served: {manifest.budget_range}, and 1.0.")
    option = "" if str(bundle.folder) == DEFAULT_BUNDLE else f" --bundle {bundle.folder}"
    console.print("Next:")
    if find_target(manifest.target).is_compiled:
        click.echo(f"  grip-edge build {bundle.folder}")
    click.echo(f"  grip-edge infer IMAGE QUESTION --budget {manifest.budget_range.max_tokens}{option}")
