"""``--log-level``, ``--log-file`` and progress. References: the lines parsed as JSON; a terminal that is none."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grip_edge.runtime import Pipeline


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_is_logged_from_start_to_end(run: Callable[..., Any], workplace: Path) -> None:
    log = workplace / "log.jsonl"
    arguments = ("bench", "--budgets", "4", "--repeats", "1", "--warmups", "0", "--new-tokens", "2", "--no-memory")
    outcome = run("--log-file", str(log), *arguments)
    assert outcome.stderr == ""  # neither progress nor log, since nobody watches
    found = lines(log)
    assert [line["message"] for line in found][:2] == ["start", "time"]
    assert found[0]["command"] == "bench"
    assert (found[-1]["message"], found[-1]["exit_code"]) == ("end", 0)
    assert found[-1]["seconds"] > 0
    assert all(line["time"].endswith("+00:00") and line["level"] == "info" for line in found)
    run("--log-file", str(log), "inspect", "grip-bundle")
    assert len(lines(log)) == len(found) + 2  # added to, not replaced
    assert not logging.getLogger("grip_edge").handlers


def test_an_error_is_logged_with_its_exit_code(run: Callable[..., Any], workplace: Path) -> None:
    outcome = run("--log-file", "log.jsonl", "infer", "none.png", "what?")
    assert outcome.exit_code == 2
    assert outcome.stderr.count("\n") == 1
    end = lines(workplace / "log.jsonl")[-1]
    assert (end["message"], end["level"], end["exit_code"]) == ("end", "error", 2)
    assert end["error"].startswith("There is no image at 'none.png'")


def test_a_bug_is_logged_with_its_traceback(
    run: Callable[..., Any], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Pipeline, "load", fail)
    with pytest.raises(ZeroDivisionError):
        run("--log-level", "error", "--log-file", "log.jsonl", "infer", "picture.png", "what?")
    assert "ZeroDivisionError: a bug" in lines(workplace / "log.jsonl")[-1]["traceback"]


def test_a_level_shows_on_the_terminal(run: Callable[..., Any], workplace: Path) -> None:
    assert "INFO grip_edge.cli.main: start" in run("--log-level", "info", "inspect", "grip-bundle").stderr
    assert run("--log-level", "error", "--log-file", "log.jsonl", "inspect", "grip-bundle").stderr == ""
    assert lines(workplace / "log.jsonl") == []
    outcome = run("--log-level", "error", "--log-file", "log.jsonl", "bench", "--repeats", "many")
    assert "log" not in outcome.stderr  # click's message alone
    assert "'many' is not a valid int" in lines(workplace / "log.jsonl")[0]["error"]


def test_a_log_that_cannot_be_written(run: Callable[..., Any]) -> None:
    outcome = run("--log-file", "no-such-folder/log.jsonl", "inspect", "grip-bundle")
    assert outcome.exit_code == 2
    assert "choose another --log-file" in outcome.stderr
