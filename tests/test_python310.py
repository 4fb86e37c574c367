"""Devices may have Python 3.10, as JetPack 6 has. Reference: a real one, named by ``GRIP_EDGE_PYTHON310``, with what
``pip install grip-edge`` brings there; elsewhere these tests are skipped. That no newer name is used anywhere on the
device side is mypy's matter (``make lint``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import grip_edge
from grip_edge.errors import UserError

CHECKOUT = Path(grip_edge.__file__).parent.parent
PICTURE, QUESTION = CHECKOUT / "examples" / "scene.png", "What letter is on the purple circle?"


@pytest.fixture(scope="module")
def python310() -> str:
    found = os.environ.get("GRIP_EDGE_PYTHON310")
    if found is None:
        pytest.skip("needs GRIP_EDGE_PYTHON310, a Python 3.10 with grip-edge's dependencies")
    return found


@pytest.fixture(scope="module")
def bundle(python310: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For JetPack 6.2, exported by this Python."""
    out = tmp_path_factory.mktemp("python310") / "bundle"
    options = ["--budget-range", "0.1,0.5", "--precision", "fp16", "--target", "jetpack-6.2", "--out", str(out)]
    done = run(sys.executable, "export", "--model", "llava-tiny", *options)
    assert done.returncode == 0, done.stderr
    return out


def run(python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [python, "-W", "error", "-m", "grip_edge.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(CHECKOUT)})


def test_answers_are_those_of_this_python(python310: str, bundle: Path) -> None:
    question = ("infer", str(PICTURE), QUESTION, "--bundle", str(bundle), "--budget", "0.1")
    found, expected = run(python310, *question), run(sys.executable, *question)
    assert found.returncode == expected.returncode == 0, found.stderr
    assert found.stdout == expected.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "{bundle}"),
        ("inspect", "{bundle}"),
        ("bench", "--bundle", "{bundle}", "--image", str(PICTURE), "--budgets", "0.1,1.0", "--repeats", "2"),
        ("explain", str(PICTURE), QUESTION, "--bundle", "{bundle}", "--out", "{bundle}/../kept.png"),
        ("calibrate", "{bundle}", "--min-agreement", "0.2", "--images", "4", "--questions-per-image", "1"),
        ("doctor", "--only", "device,machine"),
        ("models",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_of_the_device_run(python310: str, bundle: Path, arguments: tuple[str, ...]) -> None:
    done = run(python310, *(argument.format(bundle=bundle) for argument in arguments))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("export", "--model", "llava-tiny", "--budget-range", "0.1,0.5"), "[export], which is for Python 3.11"),
        (("train", "--model", "llava-tiny", "--data", "scenes", "--method", "grip"), "[train], which is for Python 3"),
        (("infer", str(PICTURE), QUESTION, "--bundle", "{newer}"), "opset 24, which ONNX Runtime 1."),
        (("verify", "{newer}"), "export the bundle with --target jetpack-6.2"),
        (("build", "{bundle}"), "This"),  # package or device: neither is here
    ],
)
def test_what_it_cannot_do_is_one_line(
    python310: str, bundle: Path, toy_bundle: Path, tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    out = ("--out", str(tmp_path / "out")) if arguments[0] in ("export", "train") else ()
    done = run(python310, *(argument.format(bundle=bundle, newer=toy_bundle) for argument in arguments), *out)
    assert done.returncode == UserError.exit_code, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("grip-edge: error: ")
    assert expected in line
