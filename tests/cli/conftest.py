"""The real command line, in this process: what it prints, what it returns, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from grip_edge.cli.main import cli


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    stdout: str
    stderr: str


Run = Callable[..., Outcome]


@pytest.fixture
def workplace(toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: holds grip-bundle and picture.png, as a user's does."""
    (tmp_path / "grip-bundle").symlink_to(toy_bundle)
    levels = np.random.default_rng(0).integers(0, 256, (72, 96, 3)).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(workplace: Path) -> Run:
    """``run("infer", "picture.png", "what?")``; an exception that is a bug fails the test with its traceback."""

    def call(*arguments: str) -> Outcome:
        result = CliRunner().invoke(cli, arguments, prog_name="grip-edge")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def refused(run: Run, workplace: Path) -> Callable[..., str]:
    """Runs what must be refused: one line on stderr, nothing on stdout, no file made or changed. Gives the line."""

    def call(*arguments: str, exit_code: int = 2) -> str:
        before = _files(workplace)
        outcome = run(*arguments)
        assert outcome.exit_code == exit_code, outcome
        assert outcome.stdout == ""
        assert outcome.stderr.startswith("grip-edge: error: ")
        assert outcome.stderr.count("\n") == 1
        assert _files(workplace) == before
        return outcome.stderr.removeprefix("grip-edge: error: ").rstrip("\n")

    return call


def _files(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}
