"""Measure ``llava-tiny`` on held-out scenes and write its model card.

    python -m grip_edge.calibration.tiny.measure grip_edge/embedded/llava-tiny --work /big/disk/llava-tiny

The card's table is what this program measured; the training times come from the training logs under --work.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import click
import torch

from grip_edge.calibration.data import SceneData
from grip_edge.calibration.evaluate import Accuracy, accuracies, answer_all
from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.tiny.architecture import IMAGE_SIDE_PX

QUESTIONS_PER_IMAGE = 5

_CARD = """\
# llava-tiny

A LLaVA (`LlavaForConditionalGeneration`): CLIP tower with CLS token, two-layer projector, Llama decoder with
grouped-query attention; {parameters:,} parameters, {visual_tokens} visual tokens, {megabytes:.1f} MB of fp16
safetensors. It answers short questions about rendered scenes of coloured shapes (`grip_edge.calibration.scenes`) and is
good for nothing else: it exists so that every stage of grip-edge runs on real pixels, offline, in seconds.

## Accuracy

Exact match on {questions:,} questions about {images:,} test scenes, unpruned, fp32, greedy; 95 % bootstrap interval
over images.

| skill | questions | accuracy | 95 % interval |
| --- | ---: | ---: | ---: |
{rows}

Reproduce: `python -m grip_edge.calibration.tiny.measure grip_edge/embedded/llava-tiny`

## Training

`python -m grip_edge.calibration.tiny.train --work DIR --out grip_edge/embedded/llava-tiny` with seed {seed}, from
random weights, on two CPU cores with AMX that had other work as well; stopped and resumed on the way:

{stages}

Train, validation and test scenes come from disjoint seed ranges (`scenes/splits.py`). Most training batches drop
background patches at random, so a missing background is nothing new to the decoder; object patches are never dropped.
Vision features are those of the second-last layer, as in LLaVA-1.5; the last layer is in the checkpoint, unused.

## Limits

English templates only; scenes of 3 to 6 objects at 168 px. Other questions get an answer that means nothing.
"""


def card(checkpoint: Path, vlm: FrozenVlm, table: Sequence[Accuracy], images: int, stages: str, seed: int) -> str:
    rows = "\n".join(
        f"| {row.skill} | {row.questions:,} | {row.accuracy:.3f} | {row.low:.3f} to {row.high:.3f} |" for row in table
    )
    return _CARD.format(
        parameters=sum(p.numel() for p in vlm.model.parameters()),
        visual_tokens=vlm.visual_tokens,
        megabytes=(checkpoint / "model.safetensors").stat().st_size / 1e6,
        questions=table[0].questions,
        images=images,
        rows=rows,
        seed=seed,
        stages=stages,
    )


def stage_lines(work: Path) -> str:
    """One line per training stage from its log: steps, seconds, last validation record."""
    lines = []
    for name in ("tower", "align", "reason", "read"):
        records = [json.loads(line) for line in (work / "run" / f"{name}.jsonl").read_text().splitlines()]
        timed = [record["seconds"] for record in records if "seconds" in record]
        # a resumed run starts counting again: add up the last value before each restart
        seconds = timed[-1] + sum(a for a, b in itertools.pairwise(timed) if b < a)
        steps = max(record["step"] for record in records) + 1
        lines.append(f"- {name}: {steps} steps, {seconds / 60:.1f} minutes{_last_validation(records)}")
    return "\n".join(lines)


def _last_validation(records: list[dict[str, float]]) -> str:
    measured = [record for record in records if "validation_loss" in record]
    if not measured:
        return ""
    shown = (f"{key.removeprefix('validation_')} {value:.3f}" for key, value in measured[-1].items() if key != "step")
    return "; on validation scenes " + ", ".join(shown)


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--images", default=1000, show_default=True, help=f"Test scenes, {QUESTIONS_PER_IMAGE} questions each.")
@click.option("--work", type=click.Path(path_type=Path), help="Training logs; with them the model card is written.")
@click.option("--seed", default=0, show_default=True, help="Of the training, for the card.")
def main(checkpoint: Path, images: int, work: Path | None, seed: int) -> None:
    """Answer the test questions; print the accuracy per skill as JSON."""
    torch.set_num_threads(os.cpu_count() or 1)
    vlm = FrozenVlm.load(checkpoint, torch.float32)
    data = SceneData("test", IMAGE_SIDE_PX, QUESTIONS_PER_IMAGE)
    table = accuracies(answer_all(vlm, data, images, [], []))
    if work is not None:
        text = card(checkpoint, vlm, table, images, stage_lines(work), seed)
        (checkpoint / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    click.echo(json.dumps([dataclasses.asdict(row) for row in table], indent=2))


if __name__ == "__main__":
    main()
