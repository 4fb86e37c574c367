"""The bench. References: the settings asked for; statistics recomputed from given results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from grip_edge.errors import BudgetError, ImageError, UserError
from grip_edge.report import TIMES
from grip_edge.runtime import BudgetUse, Result, Timings
from grip_edge.runtime.bench import BenchSettings, report_rows, run_bench


def result(kept: int, prefill_ms: float) -> Result:
    timings = Timings(1.0, 2.0, 3.0, prefill_ms, 10.0)
    return Result("x", (1, 2, 3, 4, 5), BudgetUse(kept, kept, 16), (), timings, 400.0, "backend", "bundle")


def test_rows_are_the_statistics_of_the_results() -> None:
    prefill = {"0.25": [4.0, 5.0, 9.0], "1.0": [24.0, 26.0, 94.0]}
    kept = {"0.25": 4, "1.0": 16}
    rows = report_rows({budget: [result(kept[budget], ms) for ms in times] for budget, times in prefill.items()})
    assert [(row.budget, row.kept_tokens, row.visual_tokens) for row in rows] == [("0.25", 4, 16), ("1.0", 16, 16)]
    for row in rows:
        assert row.times_ms["prefill"].mean == pytest.approx(np.mean(prefill[row.budget]))
        assert row.times_ms["ttft"].p50 == 6.0 + np.median(prefill[row.budget])
        assert row.times_ms["tpot"].p50 == 10.0 / 4
        assert row.times_ms["total"].max == 16.0 + max(prefill[row.budget])
    assert rows[0].ttft_ratio == pytest.approx((6 + 5) / (6 + 26))
    assert rows[1].ttft_ratio == 1.0


def test_without_the_unpruned_model_there_is_no_ratio() -> None:
    assert report_rows({"4": [result(4, 5.0)]})[0].ttft_ratio is None


def test_a_run(toy_bundle: Path) -> None:
    settings = BenchSettings(toy_bundle, repeats=2, warmups=1, new_tokens=4, threads=1)
    calls: list[tuple[int, int]] = []
    report = run_bench(settings, lambda done, total: calls.append((done, total)))
    assert [(row.budget, row.kept_tokens) for row in report.rows] == [("0.1", 2), ("0.25", 4), ("0.5", 8), ("1.0", 16)]
    assert calls == [(done, 12) for done in range(1, 13)]
    for row in report.rows:
        assert set(row.times_ms) == set(TIMES)
        assert {statistics.n for statistics in row.times_ms.values()} == {2}
        assert row.times_ms["vision"].min > 0.02  # milliseconds: the tower did run
    assert report.rows[-1].ttft_ratio == 1.0
    assert report.memory.metric == "ru_maxrss"
    assert report.memory.peak_host_bytes is not None
    assert report.memory.peak_host_bytes > 30 * 2**20
    assert report.machine.threads == 1
    assert report.load_ms > 0
    assert report.workload.repeats == 2


def test_the_image_asked_for_is_used(toy_bundle: Path, picture: Path) -> None:
    settings = BenchSettings(toy_bundle, ("4", "4"), picture, repeats=1, warmups=0, new_tokens=2, threads=1)
    report = run_bench(settings)
    assert report.workload.image == str(picture)
    assert [row.budget for row in report.rows] == ["4"]
    with pytest.raises(ImageError, match="There is no image"):
        run_bench(dataclasses.replace(settings, image=Path("no-such.png")))


def test_wrong_settings(toy_bundle: Path) -> None:
    with pytest.raises(UserError, match="at least 1; got 0"):
        BenchSettings(toy_bundle, repeats=0)
    with pytest.raises(UserError, match="at least 2 tokens"):
        BenchSettings(toy_bundle, new_tokens=1)
    with pytest.raises(BudgetError, match="this bundle serves"):
        run_bench(BenchSettings(toy_bundle, ("0.9",)))
