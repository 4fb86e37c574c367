"""``grip-edge compare``: what it prints, and its exit codes. The numbers are tested with the reporting."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.made_up import report


@pytest.fixture
def reports(workplace: Path) -> None:
    (workplace / "a.json").write_text(report().to_json())
    (workplace / "b.json").write_text(report(scale=1.1, seed=1).to_json())
    (workplace / "c.json").write_text(report(seed=2).to_json())


@pytest.mark.usefixtures("reports")
def test_tables(run: Callable[..., Any]) -> None:
    outcome = run("compare", "a.json", "b.json", "c.json")
    assert outcome.exit_code == 0
    for text in ("b.json over a.json", "c.json over a.json", "36/144", "144/144", "not between runs"):
        assert text in " ".join(outcome.stdout.split())


@pytest.mark.usefixtures("reports")
def test_a_regression_is_exit_code_1_and_named(run: Callable[..., Any]) -> None:
    outcome = run("compare", "a.json", "b.json", "--fail-above", "5%")
    assert outcome.exit_code == 1
    lines = outcome.stderr.splitlines()
    assert len(lines) == 4  # two budgets, TTFT and TPOT
    assert lines[0].startswith("b.json: slower: ttft at budget 0.25, concurrency 1: +")
    assert run("compare", "a.json", "b.json", "--fail-above", "20%").exit_code == 0
    assert run("compare", "a.json", "c.json", "--fail-above", "5%").exit_code == 0
    assert run("compare", "b.json", "a.json", "--fail-above", "5%").exit_code == 0


@pytest.mark.usefixtures("reports")
def test_json(run: Callable[..., Any]) -> None:
    outcome = run("compare", "a.json", "b.json", "--json", "--fail-above", "5%", "--metric", "prefill")
    document = json.loads(outcome.stdout)
    assert document["first"] == "a.json"
    compared = document["compared"]["b.json"]
    assert compared["rows"][0]["ratios"]["prefill"]["low"] > 1
    assert len(compared["regressions"]) == 2


@pytest.mark.usefixtures("reports")
def test_mistakes(refused: Callable[..., str], workplace: Path) -> None:
    assert "Two or more reports" in refused("compare", "a.json")
    assert "'none.json' cannot be read" in refused("compare", "a.json", "none.json")
    (workplace / "d.json").write_text("{}")
    assert "d.json is no grip-edge latency report" in refused("compare", "a.json", "d.json")
    for text in ("5", "many%", "-5%", "nan%"):
        assert "a percentage such as 5%" in refused("compare", "a.json", "b.json", f"--fail-above={text}")
    document = json.loads(report().to_json())
    document["workload"]["new_tokens"] = 99
    (workplace / "e.json").write_text(json.dumps(document))
    assert "--despite tokens" in refused("compare", "a.json", "e.json")


@pytest.mark.usefixtures("reports")
def test_despite_a_difference_there_is_a_caution(run: Callable[..., Any], workplace: Path) -> None:
    document = json.loads(report().to_json())
    document["state_before"]["power_mode"] = "15W"
    (workplace / "e.json").write_text(json.dumps(document))
    outcome = run("compare", "a.json", "e.json", "--despite", "power-mode")
    assert outcome.exit_code == 0
    assert "CAUTION, conditions differ: power-mode: MAXN against 15W" in outcome.stdout
