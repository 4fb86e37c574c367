"""Sessions: a graph that does not load, or is another graph than its name says, is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from grip_edge.bundle import Bundle, open_bundle
from grip_edge.errors import BundleError
from grip_edge.runtime import Pipeline
from grip_edge.runtime.onnx_backend import Graphs, ImageFeatures


@pytest.fixture
def copied(toy_bundle: Path, tmp_path: Path) -> Bundle:
    return open_bundle(shutil.copytree(toy_bundle, tmp_path / "bundle"))


def test_a_graph_that_is_no_onnx(copied: Bundle) -> None:
    copied.path("select.onnx").write_bytes(b"nonsense")
    with pytest.raises(BundleError, match=r"select\.onnx cannot be loaded") as caught:
        Graphs(copied)
    assert "\n" not in str(caught.value)


def test_a_graph_under_another_ones_name(copied: Bundle) -> None:
    shutil.copy(copied.path("embed.onnx"), copied.path("vision.onnx"))
    with pytest.raises(BundleError, match=r"vision\.onnx has the inputs token_ids; expected pixels"):
        Graphs(copied)


def test_the_budget_is_an_input_not_a_constant(pipeline: Pipeline) -> None:
    """One session, several budgets, shapes as asked."""
    features = np.random.default_rng(0).normal(size=(1, 16, 32)).astype(np.float32)
    asked = pipeline.graphs.embed((5, 6, 7))
    for budget in (1, 2, 7, 16):
        selection = pipeline.graphs.select(ImageFeatures(features), asked, budget)
        assert selection.kept_embeds.shape == (1, budget, 48)
        assert selection.kept_indices.shape == (budget,)
        assert (np.diff(selection.kept_indices) > 0).all()
        assert selection.scores.shape == (16,)
