"""Train a GRIP scorer on rendered scenes for a frozen LLaVA, and measure it.

    python -m grip_edge.calibration.train_grip grip_edge/embedded/llava-tiny --work /tmp/grip \\
        --out grip_edge/embedded/llava-tiny/scorer

Warm-up, then GRPO; both checkpoint under --work and resume. The scorer's card holds settings, seed, time and the
accuracy per budget on held-out questions, beside random, uniform stride, CLS attention and the warm-up alone.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import click
import torch

from grip_edge.calibration.data import SceneData
from grip_edge.calibration.evaluate import Accuracy, accuracies, answer_all, markdown
from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.grip.train import GripSettings, train_grip
from grip_edge.calibration.policies import ClsAttention, Grip, Random, UniformStride
from grip_edge.calibration.scorer import GripScorer
from grip_edge.calibration.scorer_files import GRIP_METHOD, ScorerCard, save_scorer
from grip_edge.calibration.training.batches import BatchSource
from grip_edge.calibration.training.cached_vlm import CachedVlm
from grip_edge.calibration.training.setup import Setup

BUDGETS = ("0.1", "0.25", "0.5")


def measure(vlm: FrozenVlm, warmed: GripScorer, scorer: GripScorer, split: str, images: int) -> list[Accuracy]:
    policies = [Random(), UniformStride(), ClsAttention(), Grip(warmed, "GRIP, warm-up only"), Grip(scorer)]
    return accuracies(answer_all(vlm, SceneData(split, vlm.image_side_px, 5), images, policies, BUDGETS))


def record(table: list[Accuracy]) -> list[dict[str, Any]]:
    return [{key: _rounded(value) for key, value in dataclasses.asdict(row).items()} for row in table]


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Checkpoints and logs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where the scorer goes.")
@click.option("--images", default=1000, show_default=True, help="Test scenes for the table, 5 questions each.")
@click.option("--seed", default=0, show_default=True)
def main(model: Path, work: Path, out: Path, images: int, seed: int) -> None:
    """Train and measure the scorer of MODEL."""
    torch.set_num_threads(os.cpu_count() or 1)
    started = time.perf_counter()
    settings, vlm = GripSettings(), FrozenVlm.load(model)
    source = BatchSource(CachedVlm(vlm), SceneData("train", vlm.image_side_px, 4), 4)
    warmed, scorer = train_grip(Setup(source, work, seed), settings)
    minutes = round((time.perf_counter() - started) / 60, 1)
    table = measure(FrozenVlm.load(model, torch.float32), warmed, scorer, "test", images)
    training = {
        "data": "rendered scenes, split train",
        "seed": seed,
        "minutes": minutes,
        **dataclasses.asdict(settings),
        "accuracy": record(table),
    }
    save_scorer(out, scorer, ScorerCard(GRIP_METHOD, scorer.config, training))
    click.echo(markdown(table))


if __name__ == "__main__":
    main()
