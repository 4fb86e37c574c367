"""The toy model, its scorer and its bundle, made once and shared by all tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.toy_model import save_toy_checkpoint, save_toy_scorer


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Shells start background jobs with SIGINT ignored, and children inherit that: Ctrl-C could not be tested there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def toy_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy_checkpoint(tmp_path_factory.mktemp("toy") / "toy-llava")


@pytest.fixture(scope="session")
def toy_scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy_scorer(tmp_path_factory.mktemp("scorer") / "scorer")


@pytest.fixture(scope="session")
def wide_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy, with heads that ONNX Runtime's own attention takes."""
    return save_toy_checkpoint(tmp_path_factory.mktemp("wide") / "toy-llava", head_dim=16)


@pytest.fixture(scope="session")
def wide_scorer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_toy_scorer(tmp_path_factory.mktemp("scorer") / "scorer", text_width=64)


@pytest.fixture(scope="session")
def toy_bundle(toy_checkpoint: Path, toy_scorer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the toy's bundle, for budgets 0.1 to 0.5 (2 to 8 of 16 tokens)."""
    from grip_edge.export.exporter import ExportOptions, export_bundle

    out = tmp_path_factory.mktemp("bundle") / "grip-bundle"
    options = ExportOptions(model=str(toy_checkpoint), budget_range="0.1,0.5", scorer=toy_scorer, out=out)
    return export_bundle(options, None).folder
