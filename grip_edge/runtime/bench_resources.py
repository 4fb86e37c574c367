"""The passes of a bench that measure energy and memory, row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from grip_edge.report import BudgetRow, Energy
from grip_edge.runtime.bench_inputs import BenchInput
from grip_edge.runtime.energy import EnergyMeter, find_meter
from grip_edge.runtime.load_generator import interleaved, run_orders
from grip_edge.runtime.memory_probe import ProbeRequest, probe_memory
from grip_edge.runtime.nvml import Gpu
from grip_edge.runtime.pipeline import Pipeline

# Long enough for a sensor that is read every 50 ms.
_ENERGY_SECONDS = 3.0

OnStep = Callable[[str, int, int], None]


def with_energy(
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


def with_memory(rows: tuple[BudgetRow, ...], request: ProbeRequest, on_step: OnStep) -> tuple[BudgetRow, ...]:
    """Of rows with one client; ``request`` says all but the budget."""
    measured = []
    for index, row in enumerate(rows):
        on_step("memory", index, len(rows))
        if row.concurrency == 1:
            row = replace(row, memory=probe_memory(replace(request, budget=row.budget)))
        measured.append(row)
    return tuple(measured)
