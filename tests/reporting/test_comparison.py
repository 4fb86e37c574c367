"""Comparisons. References: reports whose ratio is known because one was made from the other; simulated coverage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from grip_edge.errors import UserError
from grip_edge.report import LatencyReport
from grip_edge.reporting.bootstrap import median_ratio
from grip_edge.reporting.comparison import METRICS, compare, regressions
from tests.reporting.made_up import report


def test_a_report_against_itself() -> None:
    compared = compare(report(), report())
    assert not compared.despite
    assert not compared.mentioned
    for row in compared.rows:
        for ratio in row.ratios.values():
            assert ratio.value == 1.0
            assert ratio.low <= 1.0 <= ratio.high
        assert row.peak_host_ratio == 1.0
    assert regressions(compared, 0.0, METRICS) == ()


def test_a_slower_report_is_a_regression() -> None:
    compared = compare(report(), report(scale=1.1, seed=1))
    for row in compared.rows:
        for metric in METRICS:
            assert row.ratios[metric].low < 1.1 < row.ratios[metric].high or abs(row.ratios[metric].value - 1.1) < 0.02
    assert len(regressions(compared, 0.05, ("ttft", "tpot"))) == 4
    assert regressions(compared, 0.2, METRICS) == ()
    assert regressions(compare(report(scale=1.1, seed=1), report()), 0.05, METRICS) == ()  # faster is no regression


def test_noise_alone_is_no_regression() -> None:
    rng = np.random.default_rng(0)
    strata = [rng.lognormal(3, 0.5, 6)]
    other = [strata[0] * rng.permutation([0.7, 0.8, 1.0, 1.2, 1.3, 1.6])]
    ratio = median_ratio(strata, other)
    assert ratio.low < 1 < ratio.high


def test_intervals_cover_the_true_ratio_as_often_as_they_say() -> None:
    """Simulated: log-normal times, true ratio 1.2, 60 pairs of runs of 2 x 20 samples."""
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(60):
        first = [rng.lognormal(3, 0.1, 20), rng.lognormal(3.5, 0.1, 20)]
        second = [1.2 * rng.lognormal(3, 0.1, 20), 1.2 * rng.lognormal(3.5, 0.1, 20)]
        ratio = median_ratio(first, second, seed=trial)
        hits += ratio.low <= 1.2 <= ratio.high
    assert hits >= 51  # 95 % of 60 is 57; fewer than 51 has a chance of 1 in 200


def _with_machine(made: LatencyReport) -> LatencyReport:
    return replace(made, machine=replace(made.machine, cpu_model="Another"))


def _with_mode(made: LatencyReport) -> LatencyReport:
    assert made.state_before is not None
    return replace(made, state_before=replace(made.state_before, power_mode="15W"))


def _beside_other_programs(made: LatencyReport) -> LatencyReport:
    assert made.state_before is not None
    return replace(made, state_before=replace(made.state_before, load_average=9.0))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("inputs", lambda made: replace(made, workload=replace(made.workload, inputs_sha256="00" * 32))),
        ("tokens", lambda made: replace(made, workload=replace(made.workload, new_tokens=64))),
        ("model", lambda made: replace(made, workload=replace(made.workload, model="other"))),
        ("budgets", lambda made: replace(made, rows=made.rows[1:])),
        ("concurrency", lambda made: replace(made, rows=(*made.rows, replace(made.rows[0], concurrency=4)))),
        ("machine", _with_machine),
        ("power-mode", _with_mode),
        ("other-load", _beside_other_programs),
    ],
)
def test_other_conditions_are_refused_unless_they_are_named(
    name: str, change: Callable[[LatencyReport], LatencyReport]
) -> None:
    with pytest.raises(UserError, match=f"--despite {name}$"):
        compare(report(), change(report()))
    compared = compare(report(), change(report()), (name,))
    assert [one.name for one in compared.despite] == [name]


def test_what_may_differ_is_mentioned() -> None:
    other = replace(report(), workload=replace(report().workload, precision="int8", bundle_sha256="ef" * 32))
    assert [str(one) for one in compare(report(), other).mentioned] == [
        "bundle: abababababababab against efefefefefefefef",
        "precision: fp32 against int8",
    ]


def test_nothing_in_common() -> None:
    first, second = (replace(report(), rows=report().rows[index : index + 1]) for index in (0, 1))
    with pytest.raises(UserError, match="no budget and concurrency in common"):
        compare(first, second, ("budgets",))
