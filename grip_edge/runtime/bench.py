"""Latency by stage and budget: warm-ups apart, budgets interleaved so that drift hits all alike, nothing cached.

Every request does all its work, from opening the image file to the last token, with a fixed number of tokens. TTFT is
what the user waits for: everything from the request to the first token.

Not measured: device memory and energy, which a CPU does not tell apart; accuracy.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from grip_edge.budget import Budget
from grip_edge.errors import BudgetError, UserError
from grip_edge.report import STAGES, BudgetRow, LatencyReport, Statistics, Workload
from grip_edge.runtime.machine import machine, peak_memory
from grip_edge.runtime.pipeline import Pipeline
from grip_edge.runtime.result import Result

DEFAULT_BUDGETS = ("0.1", "0.25", "0.5", "1.0")
QUESTION = "What is in the picture?"


@dataclass(frozen=True)
class BenchSettings:
    """``budgets`` empty: those of ``DEFAULT_BUDGETS`` that the bundle serves. ``image`` None: a made-up photograph."""

    bundle: Path
    budgets: tuple[str, ...] = ()
    image: Path | None = None
    question: str = QUESTION
    repeats: int = 20
    warmups: int = 3
    new_tokens: int = 32
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UserError(f"The number of repeats is at least 1; got {self.repeats}.")
        if self.new_tokens < 2:
            raise UserError(f"The time per token needs at least 2 tokens per answer; got {self.new_tokens}.")


def run_bench(settings: BenchSettings, on_request: Callable[[int, int], None] | None = None) -> LatencyReport:
    """``on_request`` is called after every request with the number of finished requests and of all."""
    start = time.perf_counter()
    pipeline = Pipeline.load(settings.bundle, settings.threads, cached_images=0)
    load_ms = 1000.0 * (time.perf_counter() - start)
    schedule = _schedule(_budgets(settings, pipeline), settings.warmups + settings.repeats)
    results: dict[str, list[Result]] = {}
    with _image_file(settings.image) as (image, image_name):
        for index, budget in enumerate(schedule):
            result = pipeline.generate(
                image, settings.question, budget, max_new_tokens=settings.new_tokens, ignore_stop=True
            )
            results.setdefault(budget, []).append(result)
            if on_request is not None:
                on_request(index + 1, len(schedule))
    return LatencyReport(
        machine=machine(settings.threads),
        workload=_workload(settings, pipeline, image_name),
        memory=peak_memory(),
        load_ms=load_ms,
        first_ttft_ms=results[schedule[0]][0].timings.ttft_ms,
        rows=report_rows({budget: samples[settings.warmups :] for budget, samples in results.items()}),
    )


def report_rows(results: dict[str, list[Result]]) -> tuple[BudgetRow, ...]:
    """Results by budget as asked for -> one row each, compared with the row that keeps all tokens."""
    times_ms = {
        budget: {name: Statistics.of(values) for name, values in _samples(samples).items()}
        for budget, samples in results.items()
    }
    uses = {budget: samples[0].budget for budget, samples in results.items()}
    unpruned = next((budget for budget, use in uses.items() if use.kept_tokens == use.visual_tokens), None)

    def ratio(budget: str) -> float | None:
        return None if unpruned is None else times_ms[budget]["ttft"].p50 / times_ms[unpruned]["ttft"].p50

    return tuple(
        BudgetRow(
            budget,
            uses[budget].kept_tokens,
            uses[budget].visual_tokens,
            times_ms[budget],
            Statistics.of([result.decode_tokens_per_sec or 0.0 for result in samples]),
            ratio(budget),
        )
        for budget, samples in results.items()
    )


def _samples(results: list[Result]) -> dict[str, list[float]]:
    """Milliseconds by quantity."""
    documents = [result.to_dict()["timings_ms"] for result in results]
    samples = {name: [document[name] for document in documents] for name in (*STAGES, "ttft")}
    samples["tpot"] = [result.timings.decode_ms / (len(result.tokens) - 1) for result in results]
    samples["total"] = [document["total"] for document in documents]
    return samples


def _budgets(settings: BenchSettings, pipeline: Pipeline) -> tuple[str, ...]:
    """As written, without repetition; all checked before anything is measured."""
    allowed = pipeline.manifest.budget_range
    wanted = settings.budgets or DEFAULT_BUDGETS
    served: dict[str, None] = {}
    for budget in wanted:
        try:
            allowed.resolve(budget)
        except BudgetError:
            if settings.budgets:
                raise
        else:
            served[str(Budget.of(budget))] = None
    return tuple(served)


def _schedule(budgets: tuple[str, ...], rounds: int) -> list[str]:
    """Every budget once per round, every other round backwards, so that none always follows the same one."""
    return [budget for index in range(rounds) for budget in (budgets if index % 2 == 0 else budgets[::-1])]


def _workload(settings: BenchSettings, pipeline: Pipeline, image_name: str) -> Workload:
    manifest = pipeline.manifest
    return Workload(
        bundle=str(settings.bundle),
        model=manifest.model.name,
        precision=manifest.precision,
        image=image_name,
        question=settings.question,
        new_tokens=settings.new_tokens,
        warmups=settings.warmups,
        repeats=settings.repeats,
    )


@contextmanager
def _image_file(image: Path | None) -> Iterator[tuple[Path, str]]:
    """The image to ask about and its name in the report; a noisy colour gradient as JPEG if there is none."""
    if image is not None:
        yield image, str(image)
        return
    width, height = 640, 480
    across, down = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
    noisy = np.stack([across, down, 200 - across], axis=-1) + np.random.default_rng(0).uniform(
        0, 55, (height, width, 3)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made-up.jpg"
        Image.fromarray(noisy.astype(np.uint8)).save(path, quality=90)
        yield path, f"made-up JPEG, {width}x{height}"
