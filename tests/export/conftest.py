"""The toy's checkpoint, scorer and sessions as the export stage sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort
import pytest

from grip_edge.calibration.scorer_files import load_scorer
from grip_edge.export.checkpoint import Checkpoint, open_checkpoint
from grip_edge.export.selector import ScorerSelector, Selector
from tests.export.comparing import session


@pytest.fixture(scope="session")
def checkpoint(toy_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(toy_checkpoint)


@pytest.fixture(scope="session")
def selector(toy_scorer: Path) -> Selector:
    return ScorerSelector(*load_scorer(toy_scorer))


@pytest.fixture(scope="session")
def exported(toy_bundle: Path) -> Callable[[str], ort.InferenceSession]:
    """The session of one of the toy bundle's graphs, opened once."""
    sessions: dict[str, ort.InferenceSession] = {}

    def get(name: str) -> ort.InferenceSession:
        if name not in sessions:
            sessions[name] = session(toy_bundle / name)
        return sessions[name]

    return get
