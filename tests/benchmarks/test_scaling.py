"""Points against the budgets that bundles serve; turns with stand-ins; reports of made-up turns; a toy's whole run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.scaling import others, rounds
from benchmarks.scaling.__main__ import main
from benchmarks.scaling.axes import NEW_TOKENS, TEMPLATE_TOKENS, Axis, Fit, Point, all_axes
from benchmarks.scaling.models import BASE, family
from benchmarks.scaling.report import markdown, measured
from benchmarks.scaling.rounds import Plan, run_rounds, turn_file, turns_of
from benchmarks.scaling.worker import questions_of
from grip_edge.budget import BudgetRange

AXIS = Axis(
    "kept", "kept tokens", "kept token", tuple(Point(BASE, count, count) for count in (10, 20, 30, 40)),
    (Fit("prefill_ms", 2), Fit("token_ms", 1)),
)  # fmt: skip


@pytest.mark.parametrize("shape_name", ["yardstick", "toy"])
def test_every_point_can_be_asked(shape_name: str) -> None:
    models = family(shape_name)
    for axis in all_axes(shape_name):
        assert len({point.name for point in axis.points}) == len(axis.points)
        assert {fit.line for fit in axis.fits} <= {None, *(point.line for point in axis.points)}
        for point in axis.points:
            shape = models[point.model]
            served = BudgetRange.parse("0.05,1.0", shape.visual_tokens)
            assert served.resolve(point.kept_tokens) == point.kept_tokens
            prompt = shape.visual_tokens + TEMPLATE_TOKENS + point.question_tokens
            assert prompt + NEW_TOKENS <= shape.max_positions
            questions = questions_of(point)
            assert [len(question) for question in questions] == [point.question_tokens] * point.questions
            assert len(set(questions)) == point.questions


def test_the_cache_is_as_full_as_its_axis_says() -> None:
    """The yardstick's own prompt is known to have 32 tokens beside the image's, 13 of them the question's."""
    assert TEMPLATE_TOKENS == 32 - 13
    cache = next(axis for axis in all_axes("yardstick") if axis.name == "cache")
    for point in cache.points:
        prompt = point.kept_tokens + 19 + point.question_tokens
        assert prompt + NEW_TOKENS // 2 == point.at


def test_others_are_what_is_busy_and_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: in 2 s of two cores, 90 ticks in user mode, 10 stolen, 0.4 s of them ours: 0.6 of 4 s."""
    stat = tmp_path / "stat"
    clock: Iterator[float] = iter((10.0, 12.0))
    own: Iterator[float] = iter((1.0, 1.4))
    monkeypatch.setattr(others, "_STAT", stat)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr(others, "_own_s", lambda: next(own))
    stat.write_text("cpu  100 0 50 1000 20 0 0 5 7 0\ncpu0 1 2 3\n")
    watch = others.Watch()
    stat.write_text("cpu  190 0 50 1200 60 0 0 15 97 0\ncpu0 1 2 3\n")
    assert watch.others_share() == pytest.approx(0.15)


def turn(point: Point, share: float = 0.0, error: float = 0.0) -> dict[str, Any]:
    """Prefill takes 5 ms and 2 ms for each kept token, a step 20 ms."""
    prefill = 5 + 2 * point.kept_tokens + error
    request = {"preprocess_ms": 1.0, "vision_ms": 60.0, "select_ms": 1.0, "prefill_ms": prefill}
    request |= {"ttft_ms": 62 + prefill, "token_ms": 20 + error / 100, "all_ms": 300.0, "each_ms": 300.0}
    return {"requests": [request], "peak_rss_mb": 500.0, "others_share": share}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The points that were measured, one by one, on a machine where every first try is disturbed."""
    points: list[float] = []

    def take(folder: Path, point: Point, plan: Plan) -> dict[str, Any]:
        points.append(point.at)
        return turn(point, share=0.3 if points.count(point.at) % 2 else 0.01)

    monkeypatch.setattr(rounds, "_take", take)
    monkeypatch.setattr(rounds, "_wait_for_calm", lambda plan: None)
    return points


def test_disturbed_turns_are_taken_again_and_rounds_alternate(tmp_path: Path, asked: list[float]) -> None:
    run_rounds(tmp_path, [AXIS], Plan(rounds=2), lambda text: None)
    assert asked == [10, 10, 20, 20, 30, 30, 40, 40, 40, 40, 30, 30, 20, 20, 10, 10]
    shares = [turn["others_share"] for point in AXIS.points for turn in turns_of(tmp_path, AXIS, point)]
    assert shares == [0.01] * 8


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, asked: list[float]) -> None:
    run_rounds(tmp_path, [AXIS], Plan(rounds=1), lambda text: None)
    turn_file(tmp_path, AXIS, AXIS.points[2], 0).unlink()
    turn_file(tmp_path, AXIS, AXIS.points[1], 0).write_text(json.dumps(turn(AXIS.points[1], share=0.4)))
    asked.clear()
    run_rounds(tmp_path, [AXIS], Plan(rounds=1), lambda text: None)
    assert asked == [20, 20, 30, 30]


def test_no_turn_begins_when_the_time_is_over(tmp_path: Path) -> None:
    said: list[str] = []
    run_rounds(tmp_path, [AXIS], Plan(minutes=-1.0), said.append)
    assert said == ["The time is over; the same command goes on."]


def test_the_report_says_what_the_fit_shows(tmp_path: Path) -> None:
    for point, error in zip(AXIS.points, (0.1, -0.2, 0.2, -0.1), strict=True):
        for number in range(2):
            path = turn_file(tmp_path, AXIS, point, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(turn(point, error=error)))
        path.with_name("2.json").write_text(json.dumps(turn(point, share=0.2, error=500.0)))
    found = measured(tmp_path, AXIS, 0.05)
    text = markdown([found])
    assert "| 40 | 1.0 | 60.0 | 1.0 | 85 | 147 | 20.0 | 50.0 | 500 |" in text
    prefill = found.growths[0][1]
    assert prefill.degree == 1
    assert prefill.coefficients[1] == pytest.approx(2, abs=prefill.uncertainties[1])
    assert "ms per kept token; off by" in text
    assert "- decode: 20.0 ms (20.0 to 20.0); no growth that these points show." in text
    assert "8 requests in 8 processes" in text


def test_an_unknown_axis_is_named(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(main, [str(tmp_path), "--only", "depth"])
    assert outcome.exit_code == 2
    assert "there is no axis 'depth'; known: kept, visual, text, cache, size, batch" in outcome.stderr


def test_one_command_from_the_model_to_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="writes and exports the model")
    pytest.importorskip("matplotlib", reason="draws the picture")
    options = ["--shape", "toy", "--only", "batch", "--rounds", "1", "--repeats", "1", "--others", "1"]
    outcome = CliRunner().invoke(main, [str(tmp_path), *options], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    (document,) = json.loads((tmp_path / "scaling.json").read_text())
    assert [point["questions"] for point in document["points"]] == [1, 2, 4, 8]
    assert all(point["ttft_ms"] < point["all_ms"] for point in document["points"])
    assert sorted(path.name for path in (tmp_path / "models" / BASE).iterdir()) == ["bundle", "picture.png"]
    assert "### Questions about one image" in (tmp_path / "scaling.md").read_text()
    assert (tmp_path / "scaling.png").stat().st_size > 5000
