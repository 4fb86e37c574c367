"""Is a budget of each question's own, taken from the scorer's scores, better than one budget for all?

    python benchmarks/adaptive_budget.py --scorer DIR --images 400

Every question is answered at every budget of a grid. A rule then says how many tokens a question gets, from the scores
at one reference budget:

mass      as many as hold a given share of softmax(scores)
breadth   in proportion to the effective number of tokens, exp(entropy of softmax(scores))
margin    as many as score within a given distance of the best one

and rounds it up to the grid. Its one parameter is chosen on validation questions, for a wanted mean of kept tokens;
what counts is the accuracy on test questions against the fixed budget with the same mean (between two budgets of the
grid: the mixture of both that has this mean). "Oracle" knows which budgets answer each question right, and takes the
smallest: what any rule could gain at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from grip_edge.calibration.data import SceneData
from grip_edge.calibration.evaluation.intervals import Bootstrap
from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.scorer_files import load_scorer
from grip_edge.calibration.scorer_interface import Scorer
from grip_edge.calibration.selection import gather_tokens, keep_best
from grip_edge.calibration.training.batches import BatchSource
from grip_edge.calibration.training.cached_vlm import CachedVlm
from grip_edge.calibration.training.validation import right_answers
from grip_edge.catalog import find_model

GRID = (4, 7, 11, 14, 18, 22, 29, 36, 50, 72)
REFERENCE = 22
TARGETS = (11, 14, 22, 29)
_IMAGES_PER_BATCH = 16

Counts = NDArray[np.int64]
Rule = Callable[[NDArray[np.float64], float], NDArray[np.floating]]


@dataclass(frozen=True)
class Answered:
    """Q questions: ``right`` [Q,len(GRID)], ``scores`` [Q,N] at the reference budget, and each one's ``image``."""

    right: NDArray[np.float64]
    scores: NDArray[np.float64]
    image: Counts


def mass(scores: NDArray[np.float64], share: float) -> NDArray[np.floating]:
    ordered = -np.sort(-softmax(scores), axis=1)
    wanted: NDArray[np.floating] = (ordered.cumsum(axis=1) < share).sum(axis=1) + 1.0
    return wanted


def breadth(scores: NDArray[np.float64], factor: float) -> NDArray[np.floating]:
    policy = softmax(scores)
    entropy = -(policy * np.log(policy + 1e-30)).sum(axis=1)
    wanted: NDArray[np.floating] = factor * np.exp(entropy)
    return wanted


def margin(scores: NDArray[np.float64], distance: float) -> NDArray[np.floating]:
    wanted: NDArray[np.floating] = (
        (scores >= scores.max(axis=1, keepdims=True) - distance).sum(axis=1).astype(np.float64)
    )
    return wanted


RULES: dict[str, tuple[Rule, NDArray[np.float64]]] = {
    "mass": (mass, 1 - np.geomspace(0.5, 1e-6, 400)),
    "breadth": (breadth, np.geomspace(0.02, 20, 400)),
    "margin": (margin, np.geomspace(0.01, 100, 400)),
}


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    share: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return share


def on_grid(wanted: NDArray[np.floating]) -> Counts:
    """The place in GRID of the smallest budget that holds so many tokens; the last one where none does."""
    return np.minimum(np.searchsorted(GRID, wanted), len(GRID) - 1)


def kept_mean(places: Counts) -> float:
    return float(np.array(GRID)[places].mean())


def fixed(right: NDArray[np.float64], mean_tokens: float) -> NDArray[np.float64]:
    """Expected verdicts [Q] when every question gets the same budget, or the same mixture of two neighbours."""
    upper = int(np.clip(np.searchsorted(GRID, mean_tokens), 1, len(GRID) - 1))
    low, high = GRID[upper - 1], GRID[upper]
    weight = (mean_tokens - low) / (high - low)
    verdicts: NDArray[np.float64] = (1 - weight) * right[:, upper - 1] + weight * right[:, upper]
    return verdicts


def fit(rule: Rule, parameters: NDArray[np.float64], scores: NDArray[np.float64], target: float) -> float:
    means = [kept_mean(on_grid(rule(scores, float(parameter)))) for parameter in parameters]
    return float(parameters[int(np.argmin(np.abs(np.array(means) - target)))])


@torch.no_grad()
def answer(vlm: FrozenVlm, scorer: Scorer, split: str, images: int) -> Answered:
    data = SceneData(split, vlm.image_side_px, 5)
    source = BatchSource(CachedVlm(vlm), data, 5)
    right: list[NDArray[np.float64]] = []
    scores: list[NDArray[np.float64]] = []
    image: list[int] = []
    for start in track(range(0, images, _IMAGES_PER_BATCH), f"{split} questions at {len(GRID)} budgets"):
        asked = data.take(range(start, min(start + _IMAGES_PER_BATCH, images)))
        batch = source.batch(asked)
        verdicts = []
        for kept in GRID:
            indices = keep_best(batch.scores(scorer, kept), kept)
            verdicts.append(right_answers(vlm, batch, gather_tokens(batch.visual, indices)).numpy())
        right.append(np.stack(verdicts, axis=1).astype(np.float64))
        scores.append(batch.scores(scorer, REFERENCE).double().numpy())
        image += [start + owner for owner in asked.image_of]
    return Answered(np.concatenate(right), np.concatenate(scores), np.array(image))


def oracle(right: NDArray[np.float64]) -> Counts:
    """The smallest budget that is right; the smallest of all where none is."""
    places: Counts = right.argmax(axis=1)
    return places


def report(validation: Answered, test: Answered) -> None:
    bootstrap = Bootstrap(test.image)
    everything = np.ones(len(test.image), bool)
    print("| kept | " + " | ".join(str(kept) for kept in GRID) + " |")
    print("| --- | " + " | ".join("---:" for _ in GRID) + " |")
    print("| accuracy, % | " + " | ".join(f"{100 * share:.1f}" for share in test.right.mean(axis=0)) + " |\n")
    best = oracle(test.right)
    found = test.right[np.arange(len(best)), best]
    print(f"Oracle: {100 * found.mean():.1f} % with {kept_mean(best):.1f} tokens on average.\n")
    print("| rule | wanted | mean kept | accuracy, % | fixed, % | difference in points |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, (rule, parameters) in RULES.items():
        for target in TARGETS:
            places = on_grid(rule(test.scores, fit(rule, parameters, validation.scores, target)))
            own = test.right[np.arange(len(places)), places][None]
            same = fixed(test.right, kept_mean(places))[None]
            gap = bootstrap.difference(own, same, everything)
            print(
                f"| {name} | {target} | {kept_mean(places):.1f} | {100 * own.mean():.1f} | {100 * same.mean():.1f} "
                f"| {100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f}) |"
            )


@click.command()
@click.option("--model", default="llava-tiny", show_default=True)
@click.option("--scorer", type=click.Path(path_type=Path, exists=True), required=True, help="A trained scorer.")
@click.option("--images", default=400, show_default=True, help="Scenes of each split, 5 questions each.")
def main(model: str, scorer: Path, images: int) -> None:
    """Compare rules for a budget per question with fixed budgets."""
    vlm = FrozenVlm.load(find_model(model))
    trained = load_scorer(scorer)[0]
    report(answer(vlm, trained, "validation", images), answer(vlm, trained, "test", images))


if __name__ == "__main__":
    main()
