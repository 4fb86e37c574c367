"""Reference: the wheel as a user gets it, built from the sdist and run outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import grip_edge

CHECKOUT = Path(grip_edge.__file__).parent.parent


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (CHECKOUT / "pyproject.toml").is_file():
        pytest.skip("not a checkout")
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, CHECKOUT, cwd=out)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    others = {name for name in names if name.split("/")[0].split("-")[0] != "grip_edge"}
    assert others == {"optimum/commands/register/grip.py"}, "beside the package, only its command for optimum"
    assert not any(name.startswith("grip_edge/plugins") for name in names)
    for needed in (
        "py.typed",
        "embedded/llava-tiny/model.safetensors",
        "embedded/llava-tiny/scorer/scorer.safetensors",
    ):
        assert f"grip_edge/{needed}" in names


def test_the_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index")
    run(*pip, "--target", site, wheel, cwd=tmp_path)
    program = "import grip_edge, grip_edge.cli.main as m; print(grip_edge.__file__); m.cli(['models'])"
    printed = run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(site))
    assert printed.startswith(str(site))
    assert "llava-tiny" in printed
