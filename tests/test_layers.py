"""Reference: the import table of CONTRIBUTING.md, checked on the syntax trees and in a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import grip_edge

ROOT = Path(grip_edge.__file__).parent
STAGES = ("calibration", "export", "planning", "runtime", "cli")
ALLOWED = {
    "core": set(),
    "planning": set(),
    "runtime": set(),
    "calibration": set(),
    "export": {
        "calibration.policies",
        "calibration.scorer",
        "calibration.scorer_files",
        "calibration.scorer_interface",
        "calibration.selection",
    },
}
HEAVY = {"torch", "transformers", "onnx", "onnx_ir", "onnxscript", "safetensors"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files(stage: str) -> list[Path]:
    return sorted(ROOT.glob("*.py") if stage == "core" else (ROOT / stage).rglob("*.py"))


@pytest.mark.parametrize("stage", ALLOWED)
def test_a_stage_imports_only_what_it_may(stage: str) -> None:
    for path in files(stage):
        for name in imported(path):
            other = name.removeprefix("grip_edge.")
            if name.startswith("grip_edge.") and other.split(".")[0] in STAGES and other.split(".")[0] != stage:
                allowed = any(other == root or other.startswith(root + ".") for root in ALLOWED[stage])
                assert allowed, f"{path} ({stage}) imports {name}"


@pytest.mark.parametrize("stage", ["core", "planning", "runtime"])
def test_the_device_side_names_no_training_library(stage: str) -> None:
    for path in files(stage):
        heavy = {name.split(".")[0] for name in imported(path)} & HEAVY
        assert not heavy, f"{path} imports {heavy}"


def test_importing_the_runtime_loads_neither_torch_nor_transformers() -> None:
    program = "import sys, grip_edge.runtime; print(sorted({'torch', 'transformers', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_engines_are_built_with_onnx_alone() -> None:
    """A device has neither torch nor what exports."""
    program = (
        "import sys, grip_edge.cli.build, grip_edge.export.tensorrt.build, grip_edge.export.tensorrt.worker; "
        "print(sorted({'torch', 'transformers', 'onnx_ir', 'onnxscript', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_links_at_the_root_lead_to_the_stages() -> None:
    for name in ("calibration", "export", "runtime"):
        link = ROOT.parent / name
        if not link.exists():
            pytest.skip("not a checkout")
        assert link.is_symlink()
        assert not Path(link.readlink()).is_absolute()
        assert link.resolve() == ROOT / name
