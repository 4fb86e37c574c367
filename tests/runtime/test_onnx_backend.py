"""Sessions: a graph that does not load, or is another graph than its name says, is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from grip_edge.bundle import Bundle, open_bundle
from grip_edge.errors import BundleError, PromptError, UserError
from grip_edge.planning.onnx_bytes import FLOAT, Node, Port, model_bytes
from grip_edge.runtime import Pipeline
from grip_edge.runtime.onnx_backend import Graphs, ImageFeatures
from grip_edge.runtime.onnx_generation import OnnxRuntimeGraphs
from grip_edge.runtime.prompt import Prompt
from grip_edge.runtime.session import PROVIDER, _require_provider, load_session


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
    prompt = Prompt(before=(5, 6), after=(7, 8, 9), question=(5, 6, 7))
    before, after = (pipeline.graphs.embed(tokens) for tokens in (prompt.before, prompt.after))
    for budget in (1, 2, 7, 16, 3):
        selection = pipeline.graphs.select(ImageFeatures(features), prompt, budget)
        assert selection.kept_embeds.shape == (1, budget, 48)
        parts = before, selection.kept_embeds, after
        assert np.array_equal(selection.prompt_embeds, np.concatenate(parts, axis=1))
        assert selection.kept_indices.shape == (budget,)
        assert (np.diff(selection.kept_indices) > 0).all()
        assert selection.scores.shape == (16,)


def test_a_graph_of_an_opset_that_came_later(tmp_path: Path) -> None:
    """ONNX Runtime's own refusal; an older one says the same of opset 24. The bundle is sound."""
    before, after = ([Port(name, FLOAT, (1,))] for name in ("x", "y"))
    path = tmp_path / "vision.onnx"
    path.write_bytes(model_bytes([Node("Relu", ("x",), ("y",))], [], before, after, opset=99))
    with pytest.raises(UserError, match=r"vision\.onnx is of opset 99, which ONNX Runtime .* --target jetpack-6\.2"):
        load_session(path, ("x",), ("y",), 1)


def test_a_provider_that_leaves_all_to_the_cpu_is_an_error(copied: Bundle) -> None:
    """Azure's provider is in every package and computes nothing; ONNX Runtime lists it as the session's first."""
    with pytest.raises(UserError, match=r"AzureExecutionProvider leaves .* of \w+\.onnx to the CPU"):
        Graphs(copied, 1, "AzureExecutionProvider")


def test_a_provider_that_does_not_start_is_an_error(copied: Bundle) -> None:
    session: Any = SimpleNamespace(get_providers=lambda: [PROVIDER])
    with pytest.raises(UserError, match=r"runs vision\.onnx with CPUExecutionProvider, not with CUDAExecutionProvider"):
        _require_provider(session, copied.path("vision.onnx"), "CUDAExecutionProvider", wholly=False)


def test_single_nodes_may_stay_on_the_cpu_unless_graphs_are_compiled(copied: Bundle) -> None:
    def part(provider: str, *operators: str) -> Any:
        nodes = [SimpleNamespace(op_type=operator) for operator in operators]
        return SimpleNamespace(ep_name=provider, get_nodes=lambda: nodes)

    parts = [part("Gpu", "MatMul", "Add"), part(PROVIDER, "Shape")]
    session: Any = SimpleNamespace(
        get_providers=lambda: ["Gpu", PROVIDER], get_provider_graph_assignment_info=lambda: parts
    )
    _require_provider(session, copied.path("vision.onnx"), "Gpu", wholly=False)
    with pytest.raises(UserError, match=r"Gpu leaves Shape of vision\.onnx to the CPU"):
        _require_provider(session, copied.path("vision.onnx"), "Gpu", wholly=True)
    del parts[1]
    _require_provider(session, copied.path("vision.onnx"), "Gpu", wholly=True)


def test_a_cache_of_one_length_for_all_requests(toy_bundle: Path) -> None:
    """As compiled graphs have it; the answers are those of caches as long as each request needs."""
    image = np.random.default_rng(0).integers(0, 256, (56, 56, 3), np.uint8)
    plain, fixed = Pipeline.load(toy_bundle, threads=1), Pipeline.load(toy_bundle, threads=1)
    fixed.graphs = OnnxRuntimeGraphs(
        open_bundle(toy_bundle),
        1,
        "compiled",
        attach=lambda options, graph: options.add_free_dimension_override_by_name("C", 64),
    )
    for budget in (2, 16):
        expected, found = (one.generate(image, "what is it?", budget, 8, ignore_stop=True) for one in (plain, fixed))
        assert found.tokens == expected.tokens
    with pytest.raises(PromptError, match=r"exceed the cache of 64 that compiled has.*--max-new-tokens"):
        fixed.generate(image, "what is it?", 16, 60)
