"""``grip-edge infer``: answer a question about an image."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grip_edge.bundle import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from grip_edge.runtime import Result, Stream


@click.command()
@click.argument("image")
@click.argument("question")
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True, help="Folder that grip-edge export made.")
@click.option(
    "--budget",
    default="0.25",
    show_default=True,
    help="Visual tokens to keep: a ratio in (0, 1] with a decimal point, or a token count. 1.0 is the unpruned model; "
    "auto is what grip-edge calibrate recommends.",
)
@click.option("--max-new-tokens", type=int, default=64, show_default=True, help="Longest answer.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 takes the likeliest token.")
@click.option("--top-p", type=float, default=1.0, show_default=True, help="Draw from the likeliest tokens only.")
@click.option("--seed", type=int, help="Make draws repeatable (with --temperature).")
@click.option("--kept-image", type=click.Path(path_type=Path), help="Write a PNG that shows which patches were kept.")
@click.option(
    "--backend",
    help="One of: onnxruntime-cpu, -cuda, -tensorrt, -rtx, openvino, tensorrt.  [default: the best that runs here]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the streamed answer.")
def infer(
    image: str,
    question: str,
    bundle: str,
    budget: str,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int | None,
    kept_image: Path | None,
    backend: str | None,
    as_json: bool,
) -> None:
    """Answer QUESTION about IMAGE with a pruned vision-language model.

    \b
    Example:
      grip-edge infer scene.png "What colour is the circle?" --budget 0.25 --kept-image kept.png
    """
    from grip_edge.runtime import Pipeline
    from grip_edge.runtime.kept_image import check_kept_path, draw_kept, save_kept

    if kept_image is not None:
        check_kept_path(kept_image)
    pipeline = Pipeline.load(bundle, backend=backend)
    if sys.stderr.isatty():
        click.secho(f"{pipeline.graphs.backend}: {pipeline.backend_reason}", dim=True, err=True)
    stream = pipeline.stream(image, question, budget, max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    result = stream.result() if as_json else _print_pieces(stream)
    if kept_image is not None:
        caption = f"{question}\n{result.answer}\n{_kept_text(result)}"
        save_kept(kept_image, draw_kept(image, pipeline.manifest, result.kept_indices, caption))
    if as_json:
        click.echo(json.dumps(result.to_dict(), ensure_ascii=False, indent=2))


def _print_pieces(stream: Stream) -> Result:
    """As they come; how long it took goes to stderr, for people only."""
    for piece in stream:
        click.echo(piece, nl=False)
    click.echo()
    result = stream.result()
    if sys.stderr.isatty():
        speed = result.decode_tokens_per_sec
        rate = "" if speed is None else f", then {speed:.0f} tokens/s"
        first = f"first token after {result.timings.ttft_ms:.0f} ms"
        click.secho(f"{_kept_text(result)}; {first}{rate}", dim=True, err=True)
    return result


def _kept_text(result: Result) -> str:
    return f"{result.budget.kept_tokens} of {result.budget.visual_tokens} visual tokens kept"
