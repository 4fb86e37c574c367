"""The toy's checkpoint, scorer and sessions as the export stage sees them, and toys of the other families."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort
import pytest

from grip_edge.calibration.scorer_files import load_scorer
from grip_edge.export.checkpoint import Checkpoint, open_checkpoint
from grip_edge.export.exporter import ExportOptions, export_bundle
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.selector import ScorerSelector, Selector
from tests.export.comparing import session
from tests.toy_families import FAMILY_POLICIES, save_toy_family


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


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("families")

    def get(family: str) -> Path:
        if not (folder / family).exists():
            with quiet_libraries():
                save_toy_family(folder / family, family)
        return folder / family

    return get


@pytest.fixture(scope="session")
def bundle_of(checkpoint_of: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("bundles")

    def get(family: str) -> Path:
        if not (folder / family).exists():
            model = str(checkpoint_of(family))
            export_bundle(ExportOptions(model, "0.1,0.5", None, folder / family, policy=FAMILY_POLICIES[family]))
        return folder / family

    return get
