"""The latency report. References: numpy's statistics, a round trip through JSON, tables parsed back."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from grip_edge.errors import UserError
from grip_edge.machine_record import Machine
from grip_edge.report import TIMES, Asked, BudgetRow, LatencyReport, Memory, Statistics, Workload
from grip_edge.report_formats import COLUMNS, to_csv, to_markdown, to_table

SAMPLES = np.random.default_rng(0).gamma(3, 10, 57)


def report(repeats: int = 57) -> LatencyReport:
    drawn = np.resize(SAMPLES, repeats)
    times = {name: Statistics.of(drawn * (index + 1)) for index, name in enumerate(TIMES)}
    rows = (
        BudgetRow("0.25", 36, 144, times, Statistics.of(SAMPLES), 0.5),
        BudgetRow("1.0", 144, 144, times, Statistics.of(SAMPLES[:1]), None),
    )
    machine = Machine(None, 2, "Linux", "onnxruntime-cpu", None, {"python": "3.11"})
    asked = (Asked("x.png", "What?"),)
    workload = Workload("grip-bundle", "ab" * 32, "llava-tiny", "cpu", "fp32", asked, "cd" * 32, 32, 3, repeats)
    return LatencyReport(machine, workload, Memory(123 * 2**20, "ru_maxrss"), 80.0, 30.0, rows)


def test_statistics_equal_numpy() -> None:
    found = Statistics.of(SAMPLES.tolist())
    assert found.n == 57
    assert (found.mean, found.min, found.max) == (SAMPLES.mean(), SAMPLES.min(), SAMPLES.max())
    assert found.std == pytest.approx(np.std(SAMPLES, ddof=1))
    for percent in (50, 90, 95, 99):
        assert getattr(found, f"p{percent}") == np.percentile(SAMPLES, percent)


def test_one_sample_has_no_spread() -> None:
    assert Statistics.of([4.0]) == Statistics(1, 4.0, 4.0, 4.0, None, 4.0, 4.0, 4.0, 4.0)
    with pytest.raises(ValueError, match="at least one sample"):
        Statistics.of([])


def test_json_round_trip() -> None:
    text = report().to_json()
    assert LatencyReport.from_json(text, "x.json") == report()
    document = json.loads(text)
    assert document["schema_version"] == 2
    assert document["machine"]["cpu_model"] is None  # unknown is null


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 1}, "schema_version is 1, this version reads 2"),
        ({"kind": "something"}, "is no grip-edge latency report"),
        ({"extra": 1}, "extra"),
        ({"load_ms": "soon"}, "load_ms"),
    ],
)
def test_foreign_documents_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        LatencyReport.from_json(json.dumps({**json.loads(report().to_json()), **change}), "x.json")
    assert str(caught.value).startswith("x.json")
    assert message in str(caught.value)


def test_csv_holds_every_statistic() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(report()))))
    assert len(lines) == 2 * (len(TIMES) + 1)
    ttft = next(line for line in lines if line["budget"] == "0.25" and line["quantity"] == "ttft_ms")
    expected = report().rows[0].times_ms["ttft"]
    assert (float(ttft["p99"]), float(ttft["std"]), int(ttft["n"])) == (expected.p99, expected.std, 57)
    assert lines[-1]["std"] == ""  # unknown


def test_markdown_is_one_table_with_its_conditions() -> None:
    text = to_markdown(report())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    shown = [name for name in COLUMNS if name not in ("clients", "peak MiB", "J/answer", "accuracy %")]  # unknown
    named = dict(zip(shown, (cell.strip() for cell in rows[2].strip("|").split("|")), strict=True))
    assert rows[0] == f"| {' | '.join(shown)} |"
    assert named["kept"] == "36/144"
    assert named["TTFT p50"] == f"{report().rows[0].times_ms['ttft'].p50:.2f}"
    assert named["x of 1.0"] == "0.500"
    assert named["p99"] == f"~{report().rows[0].times_ms['ttft'].p99:.2f}"
    for condition in ("whole run 123 MiB (ru_maxrss)", "load 80 ms", "unknown CPU", "(here 57)", "question: What?"):
        assert condition in text
    assert "~" not in to_markdown(report(repeats=100))


def test_terminal_table() -> None:
    from rich.console import Console

    console = Console(width=200, file=io.StringIO())
    console.print(to_table(report()))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "36/144" in text
    assert "ru_maxrss" in text
