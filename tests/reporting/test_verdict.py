"""The report in words. References: numbers of the made-up report, computed by hand from its rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from grip_edge.report import LatencyReport
from grip_edge.reporting.verdict import meeting, verdict
from tests.reporting.made_up import report


def test_the_largest_budget_within_the_target_is_chosen() -> None:
    made = report(target_ttft_ms=60.0)  # budget 0.25 takes about 35 ms, 1.0 about 71 ms
    p90 = float(np.percentile([sample.ttft_ms for sample in made.rows[0].samples], 90))
    assert made.verdict[0] == (
        f"For TTFT <= 60 ms on this machine use budget 0.25 (36 of 144 tokens): {p90:.1f} ms (p90 of 30), "
        "accuracy 93.0 % (±1.0), 1.50 J per answer."
    )
    assert "use budget 1.0 (144 of 144 tokens)" in report(target_ttft_ms=90.0).verdict[0]


def test_the_target_is_held_by_the_tail_not_by_the_median() -> None:
    row = report().rows[0]
    ttft = row.times_ms["ttft"]
    assert ttft.p50 < ttft.p90
    assert meeting([row], ttft.p90) is row
    assert meeting([row], (ttft.p50 + ttft.p90) / 2) is None


def test_a_target_that_no_budget_holds() -> None:
    line = report(target_ttft_ms=10.0).verdict[0]
    assert line.startswith("No measured budget holds TTFT <= 10 ms")
    assert "before the language model" in line


def test_what_pruning_can_save_is_the_unpruned_prefill() -> None:
    made = report()
    prefill = np.median([sample.prefill_ms for sample in made.rows[1].samples])
    assert made.verdict[1].startswith(f"Pruning can save at most {prefill:.1f} of ")
    assert "because vision takes 2" in made.verdict[1]
    without = replace(made, rows=made.rows[:1])
    assert not any("save at most" in line for line in verdict(without))  # the unpruned model was not measured


def test_doubts_are_spoken_of() -> None:
    made = report()
    assert len(made.verdict) == 2
    busy = _with_state(made, load_average=9.0)
    assert "load average 9.0 on 6 cores" in verdict(busy)[-1]
    hot = _with_state(made, throttling=("power cap",))
    assert verdict(hot)[-1] == "The GPU ran below its clock (power cap)."


def _with_state(made: LatencyReport, **changes: object) -> LatencyReport:
    assert made.state_before is not None
    return replace(made, state_before=replace(made.state_before, **changes))  # type: ignore[arg-type]
