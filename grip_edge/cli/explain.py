"""``grip-edge explain``: a picture of what was kept at several budgets, and why."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from grip_edge.bundle import DEFAULT_BUNDLE
from grip_edge.errors import UserError


@click.command()
@click.argument("image")
@click.argument("question")
@click.option("--bundle", default=DEFAULT_BUNDLE, show_default=True, help="Folder that grip-edge export made.")
@click.option("--budgets", default="0.1,0.25,1.0", show_default=True, help="Comma-separated, one column for each.")
@click.option("--max-new-tokens", type=int, default=64, show_default=True, help="Longest answer.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="PNG to write.")
@click.option("--json", "as_json", is_flag=True, help="Print answers, kept indices and scores as one JSON document.")
def explain(
    image: str, question: str, bundle: str, budgets: str, max_new_tokens: int, out: Path, as_json: bool
) -> None:
    """Draw what was kept of IMAGE for QUESTION at several budgets: patches, scores as heat, answers.

    \b
    Example:
      grip-edge explain scene.png "What colour is the circle?" --budgets 0.1,0.25,1.0 --out why.png
    """
    from grip_edge.cli.progress import progress
    from grip_edge.runtime import Pipeline
    from grip_edge.runtime.explanation import draw_explanation, panel_of
    from grip_edge.runtime.kept_image import check_kept_path, save_kept

    wanted = tuple(dict.fromkeys(part.strip() for part in budgets.split(",") if part.strip()))
    if not wanted:
        raise UserError("--budgets names no budget; expected some such as 0.1,0.25,1.0.")
    check_kept_path(out)
    pipeline = Pipeline.load(bundle)
    streams = [pipeline.stream(image, question, budget, max_new_tokens) for budget in wanted]  # checks all of them
    results = []
    with progress() as on_step:
        for number, stream in enumerate(streams):
            on_step("explain", number, len(streams))
            results.append(stream.result())
    save_kept(out, draw_explanation(image, pipeline.manifest, question, [panel_of(result) for result in results]))
    if as_json:
        # JSON has no infinity: null is a token that the policy never chooses.
        scores = [[score if math.isfinite(score) else None for score in result.scores] for result in results]
        documents = [result.to_dict() | {"scores": own} for result, own in zip(results, scores, strict=True)]
        click.echo(json.dumps(documents, ensure_ascii=False, indent=2))
        return
    for budget, result in zip(wanted, results, strict=True):
        use = result.budget
        click.echo(f"{budget} ({use.kept_tokens} of {use.visual_tokens}): {result.answer}")
