"""The bench. References: the settings asked for; statistics recomputed from given samples; given readings."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest

from grip_edge.errors import BudgetError, ImageError, UserError
from grip_edge.report import TIMES, Sample
from grip_edge.runtime import BudgetUse, Pipeline, Result, Timings
from grip_edge.runtime.bench import BenchSettings, report_rows, run_bench
from grip_edge.runtime.bench_inputs import BenchInput, inputs_sha256
from grip_edge.runtime.bench_resources import energy_of
from grip_edge.runtime.energy import EnergyMeter
from grip_edge.runtime.load_generator import Load, Order, interleaved, run_orders, sample
from grip_edge.runtime.memory_probe import ProbeRequest, probe_memory


def made_up(kept: int, prefill_ms: float) -> Sample:
    timings = Timings(1.0, 2.0, 3.0, prefill_ms, 10.0, token_ms=(6 + prefill_ms, 9 + prefill_ms, 16 + prefill_ms))
    return sample(Result("x", (1, 2, 3), BudgetUse(kept, kept, 16), (), timings, 200.0, "backend", "bundle"), 0)


def test_a_sample_holds_the_gaps_between_tokens() -> None:
    one = made_up(4, 5.0)
    assert one.itl_ms == pytest.approx((3.0, 7.0))
    assert (one.tpot_ms, one.ttft_ms, one.total_ms) == (5.0, 11.0, 21.0)


def test_rows_are_the_statistics_of_the_samples() -> None:
    prefill = {"0.25": [4.0, 5.0, 9.0], "1.0": [24.0, 26.0, 94.0]}
    kept = {"0.25": 4, "1.0": 16}
    loads = {budget: Load(tuple(made_up(kept[budget], ms) for ms in times), 2.0) for budget, times in prefill.items()}
    rows = report_rows(loads)
    assert [(row.budget, row.kept_tokens, row.visual_tokens) for row in rows] == [("0.25", 4, 16), ("1.0", 16, 16)]
    for row in rows:
        assert row.times_ms["prefill"].mean == pytest.approx(np.mean(prefill[row.budget]))
        assert row.times_ms["ttft"].p50 == 6.0 + np.median(prefill[row.budget])
        assert row.times_ms["tpot"].p50 == 5.0
        assert row.times_ms["itl"].n == 6
        assert row.times_ms["itl"].mean == pytest.approx(5.0)
        assert row.times_ms["total"].max == 16.0 + max(prefill[row.budget])
        assert row.answers_per_sec == 1.5
        assert row.decode_tokens_per_sec.p50 == 200.0
    assert rows[0].ttft_ratio == pytest.approx((6 + 5) / (6 + 26))
    assert rows[1].ttft_ratio == 1.0


def test_without_the_unpruned_model_there_is_no_ratio() -> None:
    assert report_rows({"4": Load((made_up(4, 5.0),), 1.0)})[0].ttft_ratio is None


def test_budgets_and_inputs_take_turns() -> None:
    orders = interleaved(("a", "b"), 2, 3)
    assert [(one.budget, one.asked) for one in orders] == [
        ("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 0), ("b", 0)
    ]  # fmt: skip


def test_a_run(toy_bundle: Path) -> None:
    settings = BenchSettings(toy_bundle, repeats=2, warmups=1, new_tokens=4, threads=1)
    calls: list[tuple[str, int, int]] = []
    report = run_bench(settings, lambda *step: calls.append(step))
    assert [(row.budget, row.kept_tokens) for row in report.rows] == [("0.1", 2), ("0.25", 4), ("0.5", 8), ("1.0", 16)]
    assert [step for step in calls if step[0] == "time"] == [("time", done, 12) for done in range(1, 13)]
    for row in report.rows:
        assert set(row.times_ms) == set(TIMES)
        assert {row.times_ms[name].n for name in TIMES} == {2, 6}  # three gaps between four tokens
        assert row.times_ms["vision"].min > 0.02  # milliseconds: the tower did run
        for one in row.samples:  # the gaps are the decode stage, but for the last token's text
            assert 0 < sum(one.itl_ms) <= one.decode_ms
        assert row.memory is not None
        assert row.memory.host_metric == "VmHWM"
        assert row.memory.peak_host_bytes is not None
        assert row.memory.peak_host_bytes > 30 * 2**20
    assert report.rows[-1].ttft_ratio == 1.0
    assert report.memory.metric == "ru_maxrss"
    assert report.machine.threads == 1
    assert report.load_ms > 0
    assert report.workload.repeats == 2
    assert report.state_before is not None
    assert report.state_before.available_bytes is not None


def test_the_image_asked_for_is_used(toy_bundle: Path, picture: Path) -> None:
    settings = BenchSettings(toy_bundle, ("4", "4"), picture, repeats=1, warmups=0, new_tokens=2, measure_memory=False)
    report = run_bench(settings)
    assert [asked.image for asked in report.workload.inputs] == [str(picture)]
    assert [row.budget for row in report.rows] == ["4"]
    with pytest.raises(ImageError, match="There is no image"):
        run_bench(dataclasses.replace(settings, image=Path("no-such.png")))


def test_clients_ask_at_the_same_time_and_get_their_own_answers(pipeline: Pipeline, picture: Path) -> None:
    """Three clients meet at a barrier while their requests run; a single one would wait there in vain."""
    barrier, seen = threading.Barrier(3, timeout=60), []

    def on_request() -> None:
        seen.append(threading.get_ident())
        barrier.wait()

    inputs = (BenchInput(picture, "what is it?", "a"), BenchInput(picture, "where is it?", "b"))
    orders = [Order("4", index % 2) for index in range(3)]
    load = run_orders(pipeline, inputs, orders, 2, 3, on_request)
    assert len(set(seen)) == 3
    assert [one.asked for one in load.samples] == [0, 1, 0]


def test_the_hash_tells_images_and_questions_apart(picture: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(picture.read_bytes() + b"x")
    one = BenchInput(picture, "what?", "a")
    hashes = [inputs_sha256(inputs) for inputs in ([one], [dataclasses.replace(one, name="b")])]
    assert hashes[0] == hashes[1]  # the name does not matter
    changed = [dataclasses.replace(one, path=other)], [dataclasses.replace(one, question="where?")], [one, one]
    assert len({hashes[0], *(inputs_sha256(inputs) for inputs in changed)}) == 4


def test_energy_is_shared_among_the_answers() -> None:
    meter = EnergyMeter("source", lambda _: None, lambda _: {}, {"VDD_IN": 30.0, "VDD_GPU": 40.0}, 5.0)
    energy = energy_of(meter, answers=10, new_tokens=6)
    assert energy is not None
    assert (energy.rail, energy.joules_per_answer, energy.joules_per_token) == ("VDD_IN", 3.0, 0.5)
    assert energy.watts == {"VDD_IN": 6.0, "VDD_GPU": 8.0}
    assert energy_of(EnergyMeter("source", lambda _: None, lambda _: {}), 10, 6) is None


def test_a_probe_that_fails_says_so(picture: Path) -> None:
    memory = probe_memory(ProbeRequest("no-such-bundle", "4", str(picture), "what?", 2))
    assert memory.peak_host_bytes is None
    assert memory.host_metric == "the probe ended with exit code 1"


def test_wrong_settings(toy_bundle: Path) -> None:
    with pytest.raises(UserError, match="at least 1; got 0"):
        BenchSettings(toy_bundle, repeats=0)
    with pytest.raises(UserError, match="at least 2 tokens"):
        BenchSettings(toy_bundle, new_tokens=1)
    with pytest.raises(BudgetError, match="this bundle serves"):
        run_bench(BenchSettings(toy_bundle, ("0.9",)))
