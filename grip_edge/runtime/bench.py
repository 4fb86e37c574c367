"""Latency by stage and budget, in passes that do not disturb each other:

    cold     sessions from disk, and the very first request
    time     warm-ups apart; at concurrency 1 budgets are interleaved so that drift hits all alike, above it they
             come one after the other; nothing is cached
    energy   answers in a row at each budget, where the machine has a meter
    memory   at each budget a process of its own, when this one has let its model go

Every request does all its work, from opening the image file to the last token, with a fixed number of tokens. TTFT is
what the user waits for: everything from the request to the first token.

Not here: ceilings and accuracy, which the command line adds (``reporting``).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from grip_edge.budget import Budget
from grip_edge.bundle import MANIFEST_NAME, sha256_of
from grip_edge.errors import BudgetError, UserError
from grip_edge.manifest import Manifest
from grip_edge.report import TIMES, Asked, BudgetRow, LatencyReport, Sample, Statistics, Workload
from grip_edge.runtime.backend import TENSORRT
from grip_edge.runtime.bench_inputs import BenchInput, bench_inputs, inputs_sha256
from grip_edge.runtime.bench_resources import with_energy, with_memory
from grip_edge.runtime.load_generator import Load, Order, interleaved, run_orders
from grip_edge.runtime.machine import machine, peak_memory
from grip_edge.runtime.machine_state import machine_state
from grip_edge.runtime.memory_probe import ProbeRequest
from grip_edge.runtime.pipeline import Pipeline

DEFAULT_BUDGETS = ("0.1", "0.25", "0.5", "1.0")
QUESTION = "What is in the picture?"

OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BenchSettings:
    """``budgets`` empty: those of ``DEFAULT_BUDGETS`` that the bundle serves. ``image`` None: a made-up photograph.

    ``questions`` is a JSONL file of images and questions that take turns; ``repeats`` then rounds up so that all come
    equally often. ``backend`` None is the pipeline's own choice. ``command`` is what was typed, for the record.
    """

    bundle: Path
    budgets: tuple[str, ...] = ()
    image: Path | None = None
    question: str = QUESTION
    questions: Path | None = None
    repeats: int = 20
    warmups: int = 3
    new_tokens: int = 32
    threads: int | None = None
    backend: str | None = None
    concurrency: tuple[int, ...] = (1,)
    measure_memory: bool = True
    measure_energy: bool = True
    command: str | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("repeats", self.repeats, 1), ("warm-ups", self.warmups, 0)):
            if value < least:
                raise UserError(f"The number of {name} is at least {least}; got {value}.")
        if self.new_tokens < 2:
            raise UserError(f"The time per token needs at least 2 tokens per answer; got {self.new_tokens}.")
        if not self.concurrency or min(self.concurrency) < 1:
            raise UserError(f"Concurrency is 1 or more clients; got {', '.join(map(str, self.concurrency)) or 'none'}.")


def run_bench(settings: BenchSettings, on_step: OnStep = lambda *_: None) -> LatencyReport:
    """``on_step`` is called with the pass and the number of its finished requests and of all."""
    with bench_inputs(settings.image, settings.question, settings.questions) as inputs:
        before = machine_state()
        start = time.perf_counter()
        pipeline = Pipeline.load(settings.bundle, settings.threads, 0, settings.backend)
        load_ms = 1000.0 * (time.perf_counter() - start)
        if max(settings.concurrency) > 1 and pipeline.graphs.backend == TENSORRT:
            raise UserError("Engines of TensorRT serve one request at a time here; leave out --concurrency.")
        budgets = _budgets(settings, pipeline.manifest)
        workload = _workload(settings, pipeline.manifest, inputs)
        cold = pipeline.generate(inputs[0].path, inputs[0].question, budgets[0], max_new_tokens=settings.new_tokens)
        rows = _timed(pipeline, inputs, budgets, settings, on_step)
        if settings.measure_energy:
            rows = with_energy(rows, pipeline, inputs, settings.new_tokens, on_step)
        memory, after = peak_memory(), machine_state()
        del pipeline
        gc.collect()
        if settings.measure_memory:
            rows = with_memory(rows, _probe(settings, inputs[0]), on_step)
    return LatencyReport(
        machine=machine(settings.threads, cold.backend),
        workload=workload,
        memory=memory,
        load_ms=load_ms,
        first_ttft_ms=cold.timings.ttft_ms,
        rows=rows,
        state_before=before,
        state_after=after,
    )


def _timed(
    pipeline: Pipeline, inputs: Sequence[BenchInput], budgets: tuple[str, ...], settings: BenchSettings, on_step: OnStep
) -> tuple[BudgetRow, ...]:
    warmups, repeats = settings.warmups, _repeats(settings.repeats, len(inputs))
    total = len(settings.concurrency) * len(budgets) * (warmups + repeats)
    done = 0

    def on_request() -> None:
        nonlocal done
        done += 1
        on_step("time", min(done, total), total)

    def run(orders: Sequence[Order], clients: int) -> Load:
        return run_orders(pipeline, inputs, orders, settings.new_tokens, clients, on_request)

    rows: list[BudgetRow] = []
    for clients in settings.concurrency:
        loads: dict[str, Load] = {}
        if clients == 1:
            run(interleaved(budgets, len(inputs), warmups), 1)
            orders = interleaved(budgets, len(inputs), repeats)
            samples = run(orders, 1).samples
            for budget in budgets:
                own = tuple(one for order, one in zip(orders, samples, strict=True) if order.budget == budget)
                loads[budget] = Load(own, sum(one.total_ms for one in own) / 1000.0)
        else:
            for budget in budgets:
                run(interleaved((budget,), len(inputs), warmups), clients)
                loads[budget] = run(interleaved((budget,), len(inputs), repeats), clients)
        rows += report_rows(loads, clients)
    return tuple(rows)


def report_rows(loads: dict[str, Load], concurrency: int = 1) -> tuple[BudgetRow, ...]:
    """Samples by budget as asked for -> one row each, compared with the row that keeps all tokens."""
    times_ms = {budget: _statistics(load.samples) for budget, load in loads.items()}
    kept = {budget: max(one.kept_tokens for one in load.samples) for budget, load in loads.items()}
    whole = {budget: max(one.visual_tokens for one in load.samples) for budget, load in loads.items()}
    unpruned = next((budget for budget in loads if kept[budget] == whole[budget]), None)
    return tuple(
        BudgetRow(
            budget=budget,
            kept_tokens=kept[budget],
            visual_tokens=whole[budget],
            times_ms=times_ms[budget],
            decode_tokens_per_sec=Statistics.of([1000.0 / one.tpot_ms for one in load.samples]),
            ttft_ratio=None if unpruned is None else times_ms[budget]["ttft"].p50 / times_ms[unpruned]["ttft"].p50,
            concurrency=concurrency,
            answers_per_sec=len(load.samples) / load.seconds,
            samples=load.samples,
        )
        for budget, load in loads.items()
    )


def _statistics(samples: Sequence[Sample]) -> dict[str, Statistics]:
    """By quantity, as in ``TIMES``."""
    gaps = [gap for one in samples for gap in one.itl_ms]
    single = {name: [getattr(one, f"{name}_ms") for one in samples] for name in TIMES if name != "itl"}
    return {name: Statistics.of(gaps if name == "itl" else single[name]) for name in TIMES}


def _probe(settings: BenchSettings, asked: BenchInput) -> ProbeRequest:
    """The budget is filled in row by row."""
    return ProbeRequest(
        bundle=str(settings.bundle),
        budget="",
        image=str(asked.path),
        question=asked.question,
        new_tokens=settings.new_tokens,
        threads=settings.threads,
        backend=settings.backend,
    )


def _budgets(settings: BenchSettings, manifest: Manifest) -> tuple[str, ...]:
    """As written, without repetition; all checked before anything is measured."""
    served: dict[str, None] = {}
    for budget in settings.budgets or DEFAULT_BUDGETS:
        try:
            manifest.budget_range.resolve(budget)
        except BudgetError:
            if settings.budgets:
                raise
        else:
            served[str(Budget.of(budget))] = None
    return tuple(served)


def _repeats(wanted: int, inputs: int) -> int:
    """The least multiple of the number of inputs that is enough."""
    return -(-wanted // inputs) * inputs


def _workload(settings: BenchSettings, manifest: Manifest, inputs: Sequence[BenchInput]) -> Workload:
    return Workload(
        bundle=str(settings.bundle),
        bundle_sha256=sha256_of(settings.bundle / MANIFEST_NAME),
        model=manifest.model.name,
        target=manifest.target,
        precision=manifest.precision,
        inputs=tuple(Asked(one.name, one.question) for one in inputs),
        inputs_sha256=inputs_sha256(inputs),
        new_tokens=settings.new_tokens,
        warmups=settings.warmups,
        repeats=_repeats(settings.repeats, len(inputs)),
        command=settings.command,
    )
