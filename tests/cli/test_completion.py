"""Shell completion as documented. References: click's protocol, and bash itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = "import sys; sys.argv[0] = 'grip-edge'; from grip_edge.cli.main import main; main()"


def ask(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("grip-edge com", ["plain,compare"]),
        ("grip-edge bench --target", ["plain,--target", "plain,--target-ttft-ms"]),
        ("grip-edge bench --format js", ["plain,json"]),
        ("grip-edge compare --despite po", ["plain,power-mode"]),
    ],
)
def test_words_are_completed(words: str, expected: list[str]) -> None:
    count = str(len(words.split()) - 1)
    found = ask(_GRIP_EDGE_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=count).split()
    assert set(found) <= set(expected)
    assert found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    assert "_GRIP_EDGE_COMPLETE" in ask(_GRIP_EDGE_COMPLETE=f"{shell}_source")


def test_bash_completes_with_the_documented_line(tmp_path: Path) -> None:
    """The script is loaded and its function called as bash does at the Tab key."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    program = tmp_path / "grip-edge"
    program.write_text(f"#!{sys.executable}\n{_PROGRAM}\n")
    program.chmod(0o755)
    script = (
        'eval "$(_GRIP_EDGE_COMPLETE=bash_source grip-edge)"; COMP_WORDS=(grip-edge do); COMP_CWORD=1; '
        '_grip_edge_completion grip-edge; echo "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", script], env=environment, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.split() == ["doctor"]
