"""``grip-edge bench``: formats and files. What is measured is tested with the runtime."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grip_edge.planning.speed import Speed
from grip_edge.report import LatencyReport

ARGUMENTS = (
    *("bench", "--budgets", "0.25,1.0", "--repeats", "1", "--warmups", "0", "--new-tokens", "2"),
    *("--image", "picture.png", "--no-memory"),
)


def test_table(run: Callable[..., Any]) -> None:
    outcome = run(*ARGUMENTS)
    assert outcome.exit_code == 0
    for text in ("0.25", "4/16", "16/16", "ru_maxrss", "TTFT p50", "ITL p99"):
        assert text in outcome.stdout
    assert "\x1b" not in outcome.stdout


def test_json_in_a_file(run: Callable[..., Any], workplace: Path) -> None:
    outcome = run(*ARGUMENTS, "--format", "json", "--out", "report.json")
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    report = LatencyReport.from_json((workplace / "report.json").read_text(), "report.json")
    assert [row.budget for row in report.rows] == ["0.25", "1.0"]
    assert [asked.image for asked in report.workload.inputs] == ["picture.png"]
    assert len(report.verdict) >= 2
    assert {path.name for path in workplace.iterdir()} == {"grip-bundle", "picture.png", "report.json"}


def test_csv_and_markdown(run: Callable[..., Any]) -> None:
    lines = list(csv.DictReader(io.StringIO(run(*ARGUMENTS, "--format", "csv").stdout)))
    assert {line["budget"] for line in lines} == {"0.25", "1.0"}
    assert "| budget | kept |" in run(*ARGUMENTS, "--format", "md").stdout


def test_html_by_the_name_and_samples_beside(run: Callable[..., Any], workplace: Path) -> None:
    assert run(*ARGUMENTS, "--out", "report.html", "--samples", "samples.jsonl").exit_code == 0
    assert (workplace / "report.html").read_text().startswith("<!doctype html>")
    lines = [json.loads(line) for line in (workplace / "samples.jsonl").read_text().splitlines()]
    assert [line["budget"] for line in lines] == ["0.25", "1.0"]


def test_questions_and_clients(run: Callable[..., Any], workplace: Path) -> None:
    line = json.dumps({"image": "picture.png", "question": "what is it?", "answer": "ignored"})
    (workplace / "questions.jsonl").write_text(line + "\n\n" + line.replace("what is it", "where is it") + "\n")
    arguments = ("bench", "--budgets", "4", "--repeats", "3", "--warmups", "0", "--new-tokens", "2", "--no-memory")
    outcome = run(*arguments, "--questions", "questions.jsonl", "--concurrency", "1,2", "--format", "json")
    report = LatencyReport.from_json(outcome.stdout, "stdout")
    assert [asked.question for asked in report.workload.inputs] == ["what is it?", "where is it?"]
    assert [row.concurrency for row in report.rows] == [1, 2]
    for row in report.rows:  # both questions equally often
        assert sorted(sample.asked for sample in row.samples) == [0, 0, 1, 1]


def test_what_contradicts_itself_is_refused(refused: Callable[..., str], workplace: Path) -> None:
    (workplace / "q.jsonl").write_text('{"image": "picture.png", "question": "what?"}')
    (workplace / "bad.jsonl").write_text('{"image": "picture.png"}')
    (workplace / "lost.jsonl").write_text('{"image": "no.png", "question": "what?"}')
    assert "leave out --question" in refused("bench", "--questions", "q.jsonl", "--question", "what?")
    assert "leave out --image" in refused("bench", "--questions", "q.jsonl", "--image", "picture.png")
    assert "bad.jsonl, line 1: expected the texts image and question" in refused("bench", "--questions", "bad.jsonl")
    assert "there is no image 'no.png'" in refused("bench", "--questions", "lost.jsonl")
    assert "cannot be read" in refused("bench", "--questions", "none.jsonl")
    assert "--concurrency is a list" in refused("bench", "--concurrency", "many")
    assert "Concurrency is 1 or more" in refused("bench", "--concurrency", "0")


def test_ceilings_are_held_against_the_rates_of_this_machine(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from grip_edge.cli import bench_ceilings

    rates = Speed({"fp32": 1e9}, {"fp32": 1e9}, 1e9, 1e9, 0.0, "made up")
    monkeypatch.setattr(bench_ceilings, "measured_speed", lambda *_: rates)
    report = LatencyReport.from_json(run(*ARGUMENTS, "--ceiling", "--format", "json").stdout, "stdout")
    assert report.ceiling_basis == "rates made up"
    for row in report.rows:
        stages = {one.stage: one for one in row.ceilings}
        assert set(stages) == {"vision", "prefill", "decode"}
        assert stages["decode"].measured_ms == row.times_ms["tpot"].p50
    small, large = (row.ceilings[1] for row in report.rows)
    assert small.flops < large.flops  # prefill grows with the budget
    assert small.bytes < large.bytes
