"""``optimum-cli export grip``. Reference: ``grip-edge export``, whose options it takes and whose bundle it writes.

Optimum finds the command in its namespace, into which the checkout's plugin is put as an installation does it.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

import grip_edge
from grip_edge.bundle import open_bundle
from grip_edge.cli.export import export

# The checkout's plugin alone is a package called optimum already.
if "optimum" not in {found.name for found in importlib.metadata.distributions()}:
    pytest.skip("optimum is not installed: pip install 'grip-edge[optimum]'", allow_module_level=True)

PLUGINS = Path(grip_edge.__file__).parent / "plugins"


def optimum(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = "from optimum.commands.optimum_cli import main; main()"
    command = [sys.executable, "-c", program, "export", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(PLUGINS)}, capture_output=True, text=True)


def test_it_stands_among_optimum_s_exports_with_every_option() -> None:
    done = optimum("grip", "--help")
    assert done.returncode == 0, done.stderr
    names = [name for option in export.params for name in (*option.opts, *option.secondary_opts)]
    assert [name for name in names if name not in done.stdout] == []


def test_options_arrive_as_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PLUGINS)
    from optimum.commands.register.grip import GripExportCommand, words

    parser = ArgumentParser()
    GripExportCommand.parse_args(parser)
    given = ["--model", "m", "--budget-range", "0.1,0.5", "--precision", "int4", "--int4-block", "32", "--force"]
    assert words(parser.parse_args(given)) == given
    for flag in ("--int4-symmetric", "--int4-asymmetric"):
        parsed = export.make_context("export", words(parser.parse_args([*given, flag]))).params
        assert parsed["int4_symmetric"] is (flag == "--int4-symmetric")
        assert (parsed["int4_block"], parsed["force"]) == (32, True)


def test_it_writes_a_bundle(toy_checkpoint: Path, toy_scorer: Path, toy_bundle: Path, tmp_path: Path) -> None:
    options = ("--model", toy_checkpoint, "--scorer", toy_scorer, "--budget-range", "0.1,0.5")
    done = optimum("grip", *options, "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    found, expected = open_bundle(tmp_path / "bundle").manifest, open_bundle(toy_bundle).manifest
    assert found.files == expected.files


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = optimum("grip", "--model", tmp_path / "nothing", "--budget-range", "0.1,0.5", "--out", tmp_path / "bundle")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("grip-edge: error: There is no model")
    assert not (tmp_path / "bundle").exists()
