"""``grip-edge calibrate``: a bundle in floats becomes a quantised one whose cost is measured and limited."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grip_edge.errors import MissingExtraError
from grip_edge.export.accuracy.options import FINER, CalibrationOptions
from grip_edge.export.precision import EMBEDDING_PRECISIONS, INT4_BLOCKS, PRECISIONS, PrecisionOptions

if TYPE_CHECKING:
    from grip_edge.bundle import Bundle
    from grip_edge.calibration_record import CalibrationRecord

# What the extra ``export`` brings, as far as this needs it.
_EXTRA_PACKAGES = ("onnx", "onnx_ir", "onnxscript", "torch")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the new bundle.")
@click.option("--precision", default="int8", show_default=True, help=f"One of: {', '.join(FINER)}.")
@click.option("--lm-head-precision", help=f"For the LM head, one of: {', '.join(PRECISIONS)}; default: int8-weight.")
@click.option(
    "--embedding-precision", help=f"For the embeddings, one of: {', '.join(EMBEDDING_PRECISIONS)}; default: int8."
)
@click.option(
    "--int4-block", type=int, help=f"Inputs per scale, one of: {', '.join(map(str, INT4_BLOCKS))}; default: 32."
)
@click.option("--int4-symmetric/--int4-asymmetric", default=None, help="Without or with zero points; default: with.")
@click.option("--data", default="scenes", show_default=True, help="scenes, scenes:PRESET, a .jsonl file or a folder.")
@click.option("--split", default="train", show_default=True, help="train, validation or test.")
@click.option("--images", default=32, show_default=True, help="How many decide; as many others measure.")
@click.option("--questions-per-image", default=2, show_default=True, help="At most so many.")
@click.option(
    "--max-kl", type=float, help="Mean KL divergence from the float model that is allowed, in nats per token."
)
@click.option("--min-agreement", type=float, help="Share of tokens on which both models must agree, up to 1.")
@click.option("--rescale/--no-rescale", default=True, show_default=True, help="Rescale channels where that helps.")
@click.option("--force", is_flag=True, help="Replace a bundle that is already there.")
def calibrate(
    bundle: Path,
    out: Path,
    precision: str,
    lm_head_precision: str | None,
    embedding_precision: str | None,
    int4_block: int | None,
    int4_symmetric: bool | None,
    data: str,
    split: str,
    images: int,
    questions_per_image: int,
    max_kl: float | None,
    min_agreement: float | None,
    rescale: bool,
    force: bool,
) -> None:
    """Quantise BUNDLE (in fp32, fp16 or bf16) with a look at what it costs on your questions.

    \b
    Inputs are observed, channels rescaled where that makes rounding cheaper, and the cost measured beside BUNDLE on
    questions that nothing was chosen on. With a limit, the layers that rounding hurts most stay in more bits, as few
    as will do. What was chosen and what it costs stands in the new bundle's grip.json.
    Examples:
      grip-edge calibrate grip-bundle --precision int8 --out int8-bundle
      grip-edge calibrate grip-bundle --precision int4 --data questions.jsonl --max-kl 0.01 --out int4-bundle
    """
    formats = PrecisionOptions(precision, lm_head_precision, embedding_precision, int4_block, int4_symmetric)
    options = CalibrationOptions(bundle, out, formats, max_kl, min_agreement, rescale, force)
    _print_summary(_run(options, data, split, images, questions_per_image))


def _run(options: CalibrationOptions, data: str, split: str, images: int, questions_per_image: int) -> Bundle:
    from grip_edge.bundle import open_bundle
    from grip_edge.cli.calibration_questions import ask_about

    with _export_packages():
        from grip_edge.export.accuracy.calibrate import calibrate_bundle
        from grip_edge.export.accuracy.float_bundle import require_float_bundle

    source = open_bundle(options.bundle)
    require_float_bundle(source)
    asked = ask_about(source, data, split, images, questions_per_image)
    return calibrate_bundle(options, asked.seen, asked.checked, asked.data, lambda doing: click.echo(doing, err=True))


@contextmanager
def _export_packages() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA_PACKAGES:
            raise
        raise MissingExtraError(package, "export") from None


def _print_summary(bundle: Bundle) -> None:
    from rich.console import Console
    from rich.table import Table

    record = bundle.manifest.calibration
    if record is None:
        raise RuntimeError("a calibrated bundle has no record of it")
    click.echo(f"{bundle.folder}: {bundle.manifest.model.name}, {bundle.manifest.precision}")
    console = Console(highlight=False)
    table = Table("", "", show_header=False, title=f"Beside the float model, {record.cost.questions} questions")
    for name, value in _cost_rows(record).items():
        table.add_row(name, value)
    console.print(table)
    for layer in record.kept:
        error = "" if layer.error is None else f", error {layer.error:.2%}"
        console.print(f"Kept in {layer.format} ({layer.reason}{error}): {layer.graph} {', '.join(layer.matrices)}")
    for wide in record.wide:
        largest = "not finite" if wide.largest is None else f"up to {wide.largest:.3g}"
        console.print(f"Not for fp16: {wide.graph} {wide.layer}, values {largest} (fp16 ends at 65504)")
    click.echo(f"Next:\n  grip-edge evaluate --bundle {bundle.folder} --out report")


def _cost_rows(record: CalibrationRecord) -> dict[str, str]:
    cost = record.cost
    rows = {
        "KL, mean": f"{cost.mean_kl:.5f} nats",
        "KL, 99th percentile": f"{cost.p99_kl:.5f} nats",
        "same first choice": f"{cost.agreement:.2%} of {cost.tokens} tokens",
        "layers rescaled": str(len(record.rescaled)),
        "layers in more bits": str(len(record.kept)),
    }
    if cost.accuracy is not None and cost.float_accuracy is not None:
        rows["right answers"] = f"{cost.accuracy:.2%}, float {cost.float_accuracy:.2%}"
    return rows
