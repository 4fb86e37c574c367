"""The command line as a whole: help, exit codes, what is imported, interruption."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from grip_edge.cli.main import COMMANDS, cli
from grip_edge.errors import ParityError
from grip_edge.runtime import Pipeline

OWN_COMMANDS = ("infer", "explain", "bench", "compare", "inspect", "verify", "doctor")


@pytest.mark.parametrize("name", OWN_COMMANDS)
def test_help_begins_with_a_verb_and_shows_an_example(run: Callable[..., Any], name: str) -> None:
    outcome = run(name, "--help")
    assert outcome.exit_code == 0
    assert f"  grip-edge {name}" in outcome.stdout
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help is not None
    assert command.help.split()[0] in ("Answer", "Draw", "Measure", "Compare", "Show", "Check")
    assert all(option.help for option in command.params if isinstance(option, click.Option) and option.name != "style")


def test_wrong_usage_is_exit_code_2(run: Callable[..., Any]) -> None:
    for arguments in (("infer",), ("infer", "picture.png"), ("bench", "--repeats", "many"), ("no-such-command",)):
        outcome = run(*arguments)
        assert outcome.exit_code == 2
        assert outcome.stderr.startswith("Usage: grip-edge")
        assert outcome.stdout == ""


def test_version(run: Callable[..., Any]) -> None:
    from grip_edge import __version__

    assert run("--version").stdout == f"grip-edge, version {__version__}\n"


def test_errors_return_the_exit_code_of_their_class(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ParityError("two\nlines become one.")

    monkeypatch.setattr(Pipeline, "load", fail)
    outcome = run("infer", "picture.png", "what is it?")
    assert (outcome.exit_code, outcome.stderr) == (1, "grip-edge: error: two lines become one.\n")


def test_a_bug_keeps_its_traceback(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Pipeline, "load", fail)
    with pytest.raises(ZeroDivisionError):
        run("infer", "picture.png", "what is it?")


def test_ctrl_c_is_one_line_and_exit_code_130(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "load", interrupt)
    outcome = run("infer", "picture.png", "what is it?")
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (130, "", "grip-edge: interrupted\n")


_PROGRAM = """
import sys
from grip_edge.cli.main import main
try:
    main()
finally:
    heavy = sorted({"torch", "transformers", "onnx", "onnxscript"} & set(sys.modules))
    print("heavy modules:", heavy, file=sys.stderr)
"""


def run_program(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=False)


def test_infer_as_a_program_loads_no_torch(workplace: Path) -> None:
    finished = run_program(workplace, "infer", "picture.png", "what is it?", "--max-new-tokens", "3")
    assert finished.returncode == 0
    assert finished.stdout.endswith("\n")
    assert finished.stderr == "heavy modules: []\n"


def test_a_mistake_as_a_program_is_one_line(workplace: Path) -> None:
    finished = run_program(workplace, "infer", "no-such.png", "what is it?")
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.splitlines()[0].startswith("grip-edge: error: There is no image at 'no-such.png'")
    assert len(finished.stderr.splitlines()) == 2


def test_all_commands_of_the_contract_are_there() -> None:
    assert set(COMMANDS) >= {"export", "infer", "bench", "compare", "explain", "doctor", "inspect", "verify", "models"}
