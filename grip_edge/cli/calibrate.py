"""``grip-edge calibrate``: a bundle is fitted to its user's questions, in its numbers' format and in its budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grip_edge.cli.extras import needs_extra
from grip_edge.cli.int4_options import int4_options
from grip_edge.errors import UserError
from grip_edge.export.accuracy.options import FINER, CalibrationOptions
from grip_edge.export.precision import (
    CACHE_PRECISIONS,
    EMBEDDING_PRECISIONS,
    PRECISIONS,
    PrecisionOptions,
)
from grip_edge.export.targets.table import CPU, find_target

if TYPE_CHECKING:
    from grip_edge.bundle import Bundle
    from grip_edge.calibration_record import CalibrationRecord
    from grip_edge.cli.budget_choice import BudgetRequest

# What the extra ``export`` brings, as far as this needs it.
_EXTRA_PACKAGES = ("onnx", "onnx_ir", "onnxscript", "torch")


_BOTH_WAYS = (
    "calibrate needs a purpose:  --precision int8 --out DIR  makes a quantised bundle,  --min-agreement 0.95  or  "
    "--target-ttft-ms 50  recommends a budget."
)
_PRECISION_SEEN, _BUDGET_SEEN = ("train", 32, 2), ("validation", 200, 5)
"""Defaults of --split, --images and --questions-per-image. Budgets are chosen on what no scorer was trained on."""


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", default="scenes", show_default=True, help="scenes, scenes:PRESET, a .jsonl file or a folder.")
@click.option("--split", help="train, validation or test.  [default: train for precision, validation for budgets]")
@click.option("--images", type=int, help="How many decide; for precision, as many others measure.  [default: 32; 200]")
@click.option("--questions-per-image", type=int, help="At most so many.  [default: 2; 5]")
@click.option("--out", type=click.Path(path_type=Path), help="Quantise: folder of the new bundle.")
@click.option("--target", help="Quantise for one of the targets of export.  [default: cpu]")
@click.option("--precision", help=f"Quantise to one of: {', '.join(FINER)}.  [default: int8]")
@click.option("--lm-head-precision", help=f"For the LM head, one of: {', '.join(PRECISIONS)}; default: int8-weight.")
@click.option(
    "--embedding-precision", help=f"For the embeddings, one of: {', '.join(EMBEDDING_PRECISIONS)}; default: int8."
)
@int4_options
@click.option(
    "--cache-precision",
    help=f"For keys and values with --target cpu, one of: {', '.join(CACHE_PRECISIONS)}; default of int4: fp16.",
)
@click.option(
    "--max-kl", type=float, help="Mean KL divergence from the float model that is allowed, in nats per token."
)
@click.option("--min-token-agreement", type=float, help="Share of tokens on which quantised and float model agree.")
@click.option("--rescale/--no-rescale", default=None, help="Rescale channels where that helps; default: yes.")
@click.option("--force", is_flag=True, default=None, help="Replace a bundle that is already at --out.")
@click.option("--min-agreement", type=float, help="Recommend a budget: share of answers equal to the unpruned ones.")
@click.option("--target-ttft-ms", type=float, help="Recommend a budget: time to first token of nine requests in ten.")
@click.option("--confidence", type=float, help="Of the agreement; default: 0.95.")
@click.option("--budgets", help="Ratios or token counts to try; default: spread over the bundle's range.")
@click.option("--requests", type=int, help="Timed requests per budget; default: 30.")
@click.option("--max-new-tokens", type=int, help="Longest answer that is compared; default: 16.")
def calibrate(bundle: Path, data: str, **options: Any) -> None:
    """Fit BUNDLE to your questions: quantise it at a known cost, or find the budget that keeps a promise.

    \b
    With --out, a bundle in fp32, fp16 or bf16 becomes a quantised one. Inputs are observed, channels rescaled where
    that makes rounding cheaper, and the cost measured beside BUNDLE on questions that nothing was chosen on. With a
    limit, the layers that rounding hurts most stay in more bits, as few as will do.
    With a promise, answers and times are measured at every budget, and the smallest budget that keeps it is written
    into grip.json, with its evidence, for  infer --budget auto.  With both, the new bundle gets the budget.
    Examples:
      grip-edge calibrate grip-bundle --precision int8 --out int8-bundle
      grip-edge calibrate grip-bundle --precision int8 --target rtx --out rtx-bundle
      grip-edge calibrate grip-bundle --precision int4 --data questions.jsonl --max-kl 0.01 --out int4-bundle
      grip-edge calibrate grip-bundle --min-agreement 0.95
      grip-edge calibrate grip-bundle --data questions.jsonl --target-ttft-ms 200
    """
    given = {name for name, value in options.items() if value is not None}
    quantises, promises = "out" in given, bool(given & {"min_agreement", "target_ttft_ms"})
    _check_purpose(given, quantises, promises)
    # All options are checked before any work.
    promise = _promise(data, options) if promises else None
    if quantises:
        quantised = _quantise(bundle, data, options)
        _print_summary(quantised)
        bundle = quantised.folder
    if promise is not None:
        _recommend(bundle, promise)


def _check_purpose(given: set[str], quantises: bool, promises: bool) -> None:
    """No option is silently ignored."""
    for name in sorted(given & _QUANTISING):
        if not quantises:
            raise UserError(f"{_flag(name)} is about a quantised bundle; name it with --out.")
    for name in sorted(given & _PROMISING):
        if not promises:
            raise UserError(f"{_flag(name)} is about budgets; add --min-agreement or --target-ttft-ms.")
    if not quantises and not promises:
        raise UserError(_BOTH_WAYS)


_QUANTISING = {
    "target", "precision", "lm_head_precision", "embedding_precision", "int4_block", "int4_symmetric",
    "cache_precision", "max_kl", "min_token_agreement", "rescale", "force",
}  # fmt: skip
_PROMISING = {"confidence", "budgets", "requests", "max_new_tokens"}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _slice(options: dict[str, Any], defaults: tuple[str, int, int]) -> tuple[str, int, int]:
    """Split, images, questions per image."""
    split, images, questions = (options[name] for name in ("split", "images", "questions_per_image"))
    return (
        split or defaults[0],
        defaults[1] if images is None else images,
        defaults[2] if questions is None else questions,
    )


def _quantise(bundle: Path, data: str, options: dict[str, Any]) -> Bundle:
    from grip_edge.bundle import open_bundle
    from grip_edge.cli.calibration_questions import ask_about

    names = ("lm_head_precision", "embedding_precision", "int4_block", "int4_symmetric", "cache_precision")
    formats = PrecisionOptions(options["precision"] or "int8", *(options[name] for name in names))
    limits = (options["max_kl"], options["min_token_agreement"])
    rescale = options["rescale"] is not False
    wanted = CalibrationOptions(
        bundle, options["out"], formats, *limits, rescale, bool(options["force"]), options["target"] or CPU.name
    )
    with needs_extra("export", _EXTRA_PACKAGES):
        from grip_edge.export.accuracy.calibrate import calibrate_bundle
        from grip_edge.export.accuracy.float_bundle import require_float_bundle

    source = open_bundle(wanted.bundle)
    require_float_bundle(source)
    asked = ask_about(source, data, *_slice(options, _PRECISION_SEEN))
    return calibrate_bundle(wanted, asked.seen, asked.checked, asked.data, lambda doing: click.echo(doing, err=True))


def _promise(data: str, options: dict[str, Any]) -> BudgetRequest:
    from grip_edge.cli.budget_choice import BudgetRequest

    def or_default(name: str, value: Any) -> Any:
        return value if options[name] is None else options[name]

    budgets = tuple(part.strip() for part in (options["budgets"] or "").split(",") if part.strip())
    return BudgetRequest(
        options["min_agreement"], options["target_ttft_ms"], or_default("confidence", 0.95), budgets,
        data, *_slice(options, _BUDGET_SEEN), or_default("requests", 30), or_default("max_new_tokens", 16),
    )  # fmt: skip


def _recommend(bundle: Path, request: BudgetRequest) -> None:
    from grip_edge.bundle import open_bundle
    from grip_edge.cli.budget_choice import recommend_budget
    from grip_edge.cli.budget_table import print_recommendation

    opened = open_bundle(bundle)
    print_recommendation(opened, recommend_budget(opened, request))


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
    engines = find_target(bundle.manifest.target).is_compiled
    click.echo("Next:")
    click.echo(
        f"  grip-edge build {bundle.folder}"
        if engines
        else f"  grip-edge evaluate --bundle {bundle.folder} --out report"
    )


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
