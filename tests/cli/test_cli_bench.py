"""``grip-edge bench``: formats and files. What is measured is tested with the runtime."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grip_edge.report import LatencyReport
from grip_edge.report_formats import COLUMNS

ARGUMENTS = ("bench", "--budgets", "0.25,1.0", "--repeats", "1", "--image", "picture.png")


def test_table(run: Callable[..., Any]) -> None:
    outcome = run(*ARGUMENTS)
    assert outcome.exit_code == 0
    for text in ("0.25", "4/16", "16/16", "ru_maxrss", *COLUMNS):
        assert text in outcome.stdout
    assert "\x1b" not in outcome.stdout


def test_json_in_a_file(run: Callable[..., Any], workplace: Path) -> None:
    outcome = run(*ARGUMENTS, "--format", "json", "--out", "report.json")
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    report = LatencyReport.from_json((workplace / "report.json").read_text(), "report.json")
    assert [row.budget for row in report.rows] == ["0.25", "1.0"]
    assert report.workload.image == "picture.png"
    assert {path.name for path in workplace.iterdir()} == {"grip-bundle", "picture.png", "report.json"}


def test_csv_and_markdown(run: Callable[..., Any]) -> None:
    lines = list(csv.DictReader(io.StringIO(run(*ARGUMENTS, "--format", "csv").stdout)))
    assert {line["budget"] for line in lines} == {"0.25", "1.0"}
    assert "| budget | kept |" in run(*ARGUMENTS, "--format", "md").stdout
