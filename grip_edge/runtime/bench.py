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
from dataclasses import dataclass, replace
from pathlib import Path

from grip_edge.budget import Budget
from grip_edge.bundle import MANIFEST_NAME, sha256_of
from grip_edge.errors import BudgetError, UserError
from grip_edge.manifest import Manifest
from grip_edge.report import TIMES, Asked, BudgetRow, Energy, LatencyReport, Sample, Statistics, Workload
from grip_edge.runtime.bench_inputs import BenchInput, bench_inputs, inputs_sha256
from grip_edge.runtime.energy import EnergyMeter, find_meter
from grip_edge.runtime.load_generator import Load, Order, interleaved, run_orders
from grip_edge.runtime.machine import machine, peak_memory
from grip_edge.runtime.machine_state import machine_state
from grip_edge.runtime.memory_probe import ProbeRequest, probe_memory
from grip_edge.runtime.nvml import Gpu
from grip_edge.runtime.pipeline import Pipeline

DEFAULT_BUDGETS = ("0.1", "0.25", "0.5", "1.0")
QUESTION = "What is in the picture?"
# Long enough for a sensor that is read every 50 ms.
_ENERGY_SECONDS = 3.0

OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BenchSettings:
    """``budgets`` empty: those of ``DEFAULT_BUDGETS`` that the bundle serves. ``image`` None: a made-up photograph.

    ``questions`` is a JSONL file of images and questions that take turns; ``repeats`` then rounds up so that all come
    equally often. ``command`` is what was typed, for the record.
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
        pipeline = Pipeline.load(settings.bundle, settings.threads, cached_images=0)
        load_ms = 1000.0 * (time.perf_counter() - start)
        budgets = _budgets(settings, pipeline.manifest)
        workload = _workload(settings, pipeline.manifest, inputs)
        cold = pipeline.generate(inputs[0].path, inputs[0].question, budgets[0], max_new_tokens=settings.new_tokens)
        rows = _timed(pipeline, inputs, budgets, settings, on_step)
        if settings.measure_energy:
            rows = _with_energy(rows, pipeline, inputs, settings.new_tokens, on_step)
        memory, after = peak_memory(), machine_state()
        del pipeline
        gc.collect()
        if settings.measure_memory:
            rows = _with_memory(rows, inputs[0], settings, on_step)
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


def _with_energy(
    rows: tuple[BudgetRow, ...], pipeline: Pipeline, inputs: Sequence[BenchInput], new_tokens: int, on_step: OnStep
) -> tuple[BudgetRow, ...]:
    """Of rows with one client: as many answers in a row as make a few seconds."""
    meter = find_meter(gpu=Gpu.find())
    if meter is None:
        return rows
    measured = []
    for index, row in enumerate(rows):
        on_step("energy", index, len(rows))
        if row.concurrency == 1:
            answers = max(2, round(1000.0 * _ENERGY_SECONDS / row.times_ms["total"].p50))
            orders = interleaved((row.budget,), len(inputs), answers)
            with meter:
                run_orders(pipeline, inputs, orders, new_tokens)
            row = replace(row, energy=energy_of(meter, answers, new_tokens))
        measured.append(row)
    return tuple(measured)


def energy_of(meter: EnergyMeter, answers: int, new_tokens: int) -> Energy | None:
    rail = meter.main_rail
    if rail is None:
        return None
    per_answer = meter.joules[rail] / answers
    watts = {name: joules / meter.seconds for name, joules in meter.joules.items()}
    return Energy(answers, meter.source, rail, per_answer, per_answer / new_tokens, watts)


def _with_memory(
    rows: tuple[BudgetRow, ...], asked: BenchInput, settings: BenchSettings, on_step: OnStep
) -> tuple[BudgetRow, ...]:
    """Of rows with one client, with the first input."""
    measured = []
    for index, row in enumerate(rows):
        on_step("memory", index, len(rows))
        if row.concurrency == 1:
            request = ProbeRequest(
                bundle=str(settings.bundle),
                budget=row.budget,
                image=str(asked.path),
                question=asked.question,
                new_tokens=settings.new_tokens,
                threads=settings.threads,
            )
            row = replace(row, memory=probe_memory(request))
        measured.append(row)
    return tuple(measured)


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
