"""A latency report made up from a seed: two budgets, two questions, one of everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from grip_edge.machine_record import Machine, MachineState
from grip_edge.report import (
    Accuracy,
    Asked,
    BudgetRow,
    Ceiling,
    Energy,
    LatencyReport,
    Memory,
    RowMemory,
    Sample,
    Workload,
)
from grip_edge.reporting.verdict import verdict
from grip_edge.runtime.bench import report_rows
from grip_edge.runtime.load_generator import Load

KEPT = {"0.25": 36, "1.0": 144}
ACCURACY = {36: Accuracy(0.93, 0.92, 0.94, 500), 144: Accuracy(0.97, 0.96, 0.98, 500)}


def samples(kept: int, scale: float = 1.0, count: int = 30, seed: int = 0) -> tuple[Sample, ...]:
    """Prefill grows with the kept tokens; every time is ``scale`` times as long as at 1."""
    rng = np.random.default_rng([seed, kept])
    made = []
    for index in range(count):
        preprocess, vision, select, decode = scale * np.array([2, 20, 1, 40]) * rng.uniform(0.95, 1.05, 4)
        prefill = scale * kept / 3 * rng.uniform(0.95, 1.05)
        ttft = preprocess + vision + select + prefill
        gaps = scale * 10 * rng.uniform(0.9, 1.1, 4)
        made.append(
            Sample(
                index % 2, kept, 144, preprocess, vision, select, prefill, decode, ttft, decode / 4, ttft + decode,
                tuple(gaps.tolist()),
            )
        )  # fmt: skip
    return tuple(made)


def rows(scale: float = 1.0, count: int = 30, seed: int = 0) -> tuple[BudgetRow, ...]:
    loads = {budget: samples(kept, scale, count, seed) for budget, kept in KEPT.items()}
    made = report_rows({budget: Load(own, sum(one.total_ms for one in own) / 1000) for budget, own in loads.items()})
    return tuple(
        replace(
            row,
            memory=RowMemory(300 * 2**20, "VmHWM", None, "unavailable"),
            energy=Energy(10, "INA3221 in sysfs", "VDD_IN", 1.5, 0.3, {"VDD_IN": 12.0}),
            accuracy=ACCURACY[row.kept_tokens],
            ceilings=(Ceiling("prefill", 1e9, 1e6, 5.0, row.times_ms["prefill"].p50, 0.5),),
        )
        for row in made
    )


def report(scale: float = 1.0, count: int = 30, seed: int = 0, target_ttft_ms: float | None = None) -> LatencyReport:
    machine = Machine(
        "Some CPU & Co", 6, "Linux", "onnxruntime-cpu", None, {"python": "3.11"}, "NVIDIA Jetson <Orin>", "Orin"
    )
    state = MachineState("MAXN", "schedutil", {"gpu": 1300.0}, {"cpu": 51.5}, (), 4 * 2**30, 0, 0.4)
    asked = (Asked("a<b>.png", "What is <i>it</i>?"), Asked("b.png", "Where?"))
    work = Workload("bundle", "ab" * 32, "llava-tiny", "cpu", "fp32", asked, "cd" * 32, 5, 3, count)
    made = LatencyReport(
        machine, work, Memory(400 * 2**20, "ru_maxrss"), 80.0, 60.0, rows(scale, count, seed), state, state,
        "rates measured here", target_ttft_ms,
    )  # fmt: skip
    return replace(made, verdict=verdict(made))
