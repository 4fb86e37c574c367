"""References: tables computed by hand from written-out answers; the report read back; matplotlib's own files."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grip_edge.calibration.data import AskedQuestion
from grip_edge.calibration.evaluation import plots
from grip_edge.calibration.evaluation.cases import UNPRUNED, Case
from grip_edge.calibration.evaluation.intervals import DRAWS, Bootstrap
from grip_edge.calibration.evaluation.pareto import Point, equal_accuracy, frontier, points
from grip_edge.calibration.evaluation.records import ImageRecord
from grip_edge.calibration.evaluation.report import (
    EvaluationReport,
    FlopsRow,
    LatencyRow,
    Participant,
    Setting,
)
from grip_edge.calibration.evaluation.report_formats import to_csv, to_markdown
from grip_edge.calibration.evaluation.scoring import RULES
from grip_edge.calibration.evaluation.tables import ScoredAnswers, accuracy_rows, agreement_rows, difference_rows
from grip_edge.errors import MissingExtraError, UserError

CASES = (
    Case(UNPRUNED, "1.0", 16),
    Case("cls", "0.25", 4),
    Case("grip", "0.25", 4, 0),
    Case("grip", "0.25", 4, 1),
    Case("grip (bundle)", "1.0", 16),
    Case("grip (bundle)", "0.25", 4),
)
GOLD = ("yes", "no", "yes", "no")


def records() -> list[ImageRecord]:
    """Two images with two questions each; the right answers are yes, no, yes, no."""
    said = {
        CASES[0]: ("yes", "no", "Yes.", "yes"),  # 3 of 4 right
        CASES[1]: ("no", "no", "no", "no"),  # 2 of 4; 1 of 4 as unpruned
        CASES[2]: ("yes", "no", "yes", "yes"),  # 3 of 4; all as unpruned
        CASES[3]: ("yes", "no", "no", "yes"),  # 2 of 4
        CASES[4]: ("yes", "no", "yes", "no"),  # 4 of 4; 3 of 4 as PyTorch
        CASES[5]: ("yes", "no", "yes", "no"),  # 3 of 4 as run 0 in PyTorch
    }
    questions = [AskedQuestion(f"q{i}", gold, (gold,), "odd" if i % 2 else "even") for i, gold in enumerate(GOLD)]
    return [
        ImageRecord(
            image,
            tuple(questions[2 * image : 2 * image + 2]),
            tuple(said[case][2 * image : 2 * image + 2] for case in CASES),
        )
        for image in (0, 1)
    ]


@pytest.fixture
def scored() -> ScoredAnswers:
    return ScoredAnswers(CASES, records(), RULES["pope"])


@pytest.fixture
def report(scored: ScoredAnswers) -> EvaluationReport:
    bootstrap = Bootstrap(scored.image)
    times = {"cls": (1.0, 9.0), "grip": (2.0, 8.0), UNPRUNED: (5.0, 12.0)}
    return EvaluationReport(
        visual_tokens=16,
        setting=Setting("toy", "written out", 2, 4, "pope", "fp32", 8, "grip", DRAWS, {"grip-edge": "0"}),
        participants=(
            Participant(UNPRUNED, "all visual tokens", (), None),
            Participant("cls", "CLS attention", (), None),
            Participant("grip", "GRIP", ("run0", "run1"), None),
            Participant("grip (bundle)", "GRIP, cpu, fp32", (), "grip-bundle"),
        ),
        accuracy=accuracy_rows(scored, bootstrap),
        differences=difference_rows(scored, bootstrap, "grip"),
        agreement=agreement_rows(scored, bootstrap, {"grip (bundle)": "grip"}),
        machine=None,
        latency=tuple(
            LatencyRow(case.policy, case.budget, case.kept_tokens, 5, 2, dict(zip(("ttft", "total"), ms, strict=True)))
            for case in CASES[:3]
            for ms in [times[case.policy]]
        ),
        flops=(FlopsRow("grip", "0.25", 4, 20, 1000, 10, 500, 0.4),),
    )


def test_accuracy_and_agreement_by_hand(report: EvaluationReport) -> None:
    rows = {(row.policy, row.budget, row.group): row for row in report.accuracy}
    assert len(rows) == 5 * 3
    unpruned, cls, grip = rows[UNPRUNED, "1.0", "all"], rows["cls", "0.25", "all"], rows["grip", "0.25", "all"]
    assert (unpruned.accuracy, cls.accuracy, grip.accuracy) == (0.75, 0.5, 0.625)
    assert (unpruned.agreement, cls.agreement, grip.agreement) == (1.0, 0.25, 0.875)
    assert grip.runs == (0.75, 0.5)
    assert grip.run_std == pytest.approx(np.std([0.75, 0.5], ddof=1))
    assert cls.run_std is None
    assert rows["cls", "0.25", "odd"].accuracy == 1.0
    assert rows["cls", "0.25", "even"].accuracy == 0.0
    assert rows["cls", "0.25", "even"].questions == 2
    assert unpruned.metrics == pytest.approx({"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "yes_rate": 0.75})
    assert cls.metrics["precision"] is None
    for row in report.accuracy:
        assert row.low <= row.accuracy <= row.high


def test_differences_by_hand(report: EvaluationReport) -> None:
    found = {(row.policy, row.against, row.budget): row.difference for row in report.differences}
    assert found == {
        ("cls", UNPRUNED, "0.25"): -0.25,
        ("grip", UNPRUNED, "0.25"): -0.125,
        ("grip (bundle)", UNPRUNED, "0.25"): 0.25,
        ("grip", "cls", "0.25"): 0.125,
        ("grip", "grip (bundle)", "0.25"): -0.375,
    }


def test_a_bundle_is_compared_with_the_same_policy_in_pytorch(report: EvaluationReport) -> None:
    found = {(row.bundle, row.policy, row.budget): row.agreement for row in report.agreement}
    assert found == {("grip (bundle)", UNPRUNED, "1.0"): 0.75, ("grip (bundle)", "grip", "0.25"): 0.75}


def test_a_bundle_alone_is_compared_with_itself_unpruned() -> None:
    cases = CASES[4:]
    alone = [dataclasses.replace(record, answers=record.answers[4:]) for record in records()]
    scored = ScoredAnswers(cases, alone, RULES["pope"])
    rows = accuracy_rows(scored, Bootstrap(scored.image))
    assert {row.agreement for row in rows if row.group == "all"} == {1.0}
    (difference,) = difference_rows(scored, Bootstrap(scored.image), None)
    assert (difference.policy, difference.against, difference.difference) == (
        "grip (bundle)",
        "grip (bundle) at 1.0",
        0.0,
    )


def test_one_group_is_not_shown_twice() -> None:
    one = [
        dataclasses.replace(record, questions=tuple(dataclasses.replace(q, group="all") for q in record.questions))
        for record in records()
    ]
    assert list(ScoredAnswers(CASES, one, RULES["exact"]).groups()) == ["all"]


def test_json_round_trip_and_what_is_refused(report: EvaluationReport) -> None:
    text = report.to_json()
    assert EvaluationReport.from_json(text, "report.json") == report
    data = json.loads(text)
    assert (data["kind"], data["schema_version"]) == ("grip-edge evaluation report", 1)
    for change, message in (
        ({"kind": "x"}, "is no grip-edge evaluation report"),
        ({"schema_version": 9}, "schema_version is 9, this version reads 1"),
        ({"surprise": 1}, "surprise"),
        ({"visual_tokens": "many"}, "visual_tokens"),
    ):
        with pytest.raises(UserError, match=message) as error:
            EvaluationReport.from_json(json.dumps(data | change), "report.json")
        assert str(error.value).startswith("report.json")
    with pytest.raises(UserError, match="not valid JSON"):
        EvaluationReport.from_json("{", "report.json")


def test_csv_has_every_row_and_metric(report: EvaluationReport) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert len(lines) == len(report.accuracy)
    grip = next(line for line in lines if line["policy"] == "grip" and line["group"] == "all")
    assert (grip["accuracy"], grip["runs"], grip["total_p50_ms"], grip["saved_flops_share"]) == (
        "0.625",
        "0.750000 0.500000",
        "8.0",
        "0.4",
    )
    cls = next(line for line in lines if line["policy"] == "cls" and line["group"] == "all")
    assert (cls["precision"], cls["yes_rate"], cls["run_std"]) == ("", "0.0", "")


def test_markdown_shows_what_decides(report: EvaluationReport) -> None:
    text = to_markdown(report)
    for shown in (
        "**toy, 4 questions about 2 images (written out), scoring 'pope'**",
        "| grip | 0.25 (4/16) | 62.5 (",
        "75.0 50.0, std 17.68",
        "| grip - cls | 0.25 | +12.5 (",
        "| grip (bundle) | unpruned | 1.0 | 75.0 (",
        "| cls 0.25 | 50.0 | 9.00 | grip 0.25 | 62.5 | 8.00 | +11.1 % |",
        "| grip | 0.25 (4/16) | 1e-06 | 1e-08 | 5e-07 | 40.0 % |",
        "- grip: GRIP; runs: run0, run1",
    ):
        assert shown in text, text
    bare = dataclasses.replace(report, differences=(), agreement=(), latency=(), flops=())
    for title in ("Differences", "Bundles against", "Latency", "Equal accuracy", "GFLOPs"):
        assert title not in to_markdown(bare)


def test_the_frontier_and_equal_accuracy_by_hand() -> None:
    a, b = Point("mine", "0.1", 2, 0.6, 5.0), Point("mine", "0.5", 8, 0.8, 9.0)
    c, d = Point("x", "0.1", 2, 0.6, 6.0), Point("x", "0.5", 8, 0.7, 12.0)
    assert frontier([d, c, b, a]) == [a, b]
    found = {match.rival: match for match in equal_accuracy([a, b, c, d], "mine")}
    assert (found[c].fastest, found[d].fastest) == (a, b)
    assert found[d].saved_share == pytest.approx(0.25)
    assert not equal_accuracy([Point("mine", "0.1", 2, 0.5, 1.0), c], "mine")


def test_points_are_what_was_answered_and_timed(report: EvaluationReport) -> None:
    assert [(point.policy, point.accuracy, point.total_ms) for point in points(report)] == [
        (UNPRUNED, 0.75, 12.0),
        ("cls", 0.5, 9.0),
        ("grip", 0.625, 8.0),
    ]


def test_plots_are_pictures(report: EvaluationReport, tmp_path: Path) -> None:
    for draw in (plots.draw_accuracy, plots.draw_pareto):
        path = tmp_path / f"{draw.__name__}.png"
        draw(report, path)
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            ink = (np.asarray(picture.convert("L")) < 250).mean()
        assert 0.02 < ink < 0.5, ink


def test_without_matplotlib_the_pip_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'grip-edge\[report\]'"):
        plots.check_matplotlib()
