"""``select.onnx`` of every policy that needs no training. References: the policy in PyTorch, and, where ties make
rounding decide, plain numpy on numbers that are exact.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grip_edge.calibration.policies import POLICIES, Evidence
from grip_edge.calibration.policies.set_policy import SetPolicy
from grip_edge.calibration.selection import keep_best_numpy
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.graphs import Graph, select_graph
from grip_edge.export.networks.select import SelectByPolicy
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.selector import PolicySelector
from grip_edge.export.tracing import trace
from grip_edge.policy_catalog import CLS_ATTENTION, POLICY_SPECS
from tests.export.comparing import assert_close, network_with_weights, random_array, session, write_graph
from tests.toy_model import GRID, VISUAL_TOKENS

Array = NDArray[Any]
# More than the 12 tokens, so that random ones span as many dimensions: what is left of a volume is not rounding.
WIDTH = 16
EXPORTABLE = [name for name, spec in POLICY_SPECS.items() if spec.exportable]
SET_BUILDING = ["divprune", "cdpruner", "cen-cdpruner", "eadp"]
Sessions = Callable[[str], ort.InferenceSession]


class Bare(nn.Module):
    """A projector that changes nothing, so that a test says what the policy compares."""

    def forward(self, features: Tensor) -> Tensor:
        return features


def bare_session(name: str, grid: tuple[int, int], width: int) -> ort.InferenceSession:
    """The policy's selection as a graph, on features as they are."""
    spec, count = POLICY_SPECS[name], grid[0] * grid[1]
    cls_attention = (torch.zeros(1, count),) if CLS_ATTENTION in spec.reads else ()

    def make() -> tuple[nn.Module, tuple[Any, ...]]:
        select = SelectByPolicy(POLICIES[name](), spec, grid, Bare())
        inputs = (torch.zeros(1, count, width), torch.zeros(1, 5, width), torch.ones(1, dtype=torch.int64))
        return select, (*inputs, *(torch.zeros(1, count) for _ in cls_attention))

    names = ("features", "question_embeds", "budget", *("cls_attention" for _ in cls_attention))
    outputs = ("kept_embeds", "kept_indices", "scores")
    graph = Graph("select.onnx", make, str, names, outputs, ({}, {1: "T"}, {}, *({} for _ in cls_attention)))
    with quiet_libraries():
        return session(trace(graph))


@pytest.fixture(scope="module")
def small() -> Callable[[str], ort.InferenceSession]:
    sessions: dict[str, ort.InferenceSession] = {}

    def get(name: str) -> ort.InferenceSession:
        if name not in sessions:
            sessions[name] = bare_session(name, (3, 4), WIDTH)
        return sessions[name]

    return get


def run(select: ort.InferenceSession, features: Array, question: Array, kept: int, attention: Array) -> list[Array]:
    feeds = {"features": features, "question_embeds": question, "budget": np.array([kept]), "cls_attention": attention}
    wanted = {value.name for value in select.get_inputs()}
    outputs: list[Array] = select.run(None, {name: feeds[name] for name in wanted})
    return outputs


def evidence(features: Array, question: Array, attention: Array, grid: tuple[int, int]) -> Evidence:
    tensor = torch.from_numpy(features)
    mask = torch.ones(question.shape[:2], dtype=torch.bool)
    return Evidence(tensor, tensor, torch.from_numpy(attention), torch.from_numpy(question), mask, grid)


def difficult(case: str, seed: int) -> tuple[Array, Array, Array]:
    """Features [1,12,D], question [1,T,D], attention [1,12] whose ties are exact: entries 0 and 1, norms 1 and 2."""
    draw = np.random.default_rng(seed)
    features = np.eye(WIDTH, dtype=np.float32)[draw.integers(0, 4, 12)]
    attention = draw.choice([0.125, 0.25, 0.5], 12).astype(np.float32)
    question = np.eye(WIDTH, dtype=np.float32)[draw.integers(0, 4, (1, 1 + seed))]
    if case == "constant":
        features[:], attention[:] = features[0], 0.25
    elif case == "two norms":
        features[::3] *= 2
    elif case == "zeros":
        features[[2, 7]], question[0, 0] = 0, 0
    elif case == "NaN":
        features[[0, 5], 3], attention[[0, 5]] = math.nan, math.nan
    elif case == "all NaN":
        features[:], attention[:], question[:] = math.nan, math.nan, math.nan
    elif case == "infinite":
        features[4, 1], question[0, 0, 0], attention[4] = math.inf, -math.inf, -math.inf
    return features[None], question, attention[None]


CASES = ["duplicates", "constant", "two norms", "zeros", "NaN", "all NaN", "infinite"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", EXPORTABLE)
def test_ties_duplicates_constants_and_nan(small: Sessions, name: str, case: str) -> None:
    """One session, every budget, two lengths of question: the sets of the policy in PyTorch."""
    for seed in (0, 1, 2):
        features, question, attention = difficult(case, seed)
        given = evidence(features, question, attention, (3, 4))
        for kept in range(1, 13):
            embeds, indices, scores = run(small(name), features, question, kept, attention)
            expected = POLICIES[name]().select(given, kept)[0].tolist()
            assert indices[0].tolist() == expected, (seed, kept, scores)
            assert indices[0].tolist() == keep_best_numpy(scores[0], kept).tolist()
            np.testing.assert_array_equal(embeds[0], features[0, indices[0]])


@pytest.mark.parametrize("name", [name for name in EXPORTABLE if name not in ("uniform", "visionzip")])
def test_broken_tokens_are_kept_last(small: Sessions, name: str) -> None:
    """Tokens 0 and 5 hold NaN. (VisionZip strides over the rest, whatever it is worth.)"""
    features, question, attention = difficult("NaN", 1)
    for kept in range(1, 13):
        indices = run(small(name), features, question, kept, attention)[1][0].tolist()
        assert [index in indices for index in (0, 5)] == [kept > 10, kept > 11]


def farthest_first(features: Array, kept: int) -> list[int]:
    """DivPrune in numpy, on one-hot features: distances are 0 and 1."""
    distance = (features[:, None] != features[None]).any(axis=-1).astype(float)
    chosen: list[int] = []
    while len(chosen) < kept:
        rest = [i for i in range(len(features)) if i not in chosen]
        among = chosen or range(len(features))
        chosen.append(max(rest, key=lambda i: min(distance[i, j] for j in among if j != i)))
    return sorted(chosen)


def test_divprune_takes_one_of_each_kind_first(small: Sessions) -> None:
    for seed in range(4):
        features, question, attention = difficult("duplicates", seed)
        for kept in range(1, 13):
            found = run(small("divprune"), features, question, kept, attention)[1][0].tolist()
            assert found == farthest_first(features[0], kept), (seed, kept)


@pytest.mark.parametrize("name", EXPORTABLE)
def test_one_session_serves_every_budget_on_random_tokens(small: Sessions, name: str) -> None:
    sets = set()
    for length in (1, 6):
        features, question = random_array(length, 1, 12, WIDTH), random_array(9, 1, length, WIDTH)
        attention = np.abs(random_array(4, 1, 12))
        given = evidence(features, question, attention, (3, 4))
        for kept in range(1, 13):
            embeds, indices, scores = run(small(name), features, question, kept, attention)
            assert indices.shape == (1, kept)
            assert embeds.shape == (1, kept, WIDTH)
            assert_close("scores", scores, POLICIES[name]().scores(given, torch.tensor([kept])), 1e-6)
            assert indices[0].tolist() == POLICIES[name]().select(given, kept)[0].tolist()
            sets.add(tuple(indices[0].tolist()))
    assert len(sets) >= 12


@pytest.mark.parametrize("name", EXPORTABLE)
def test_576_tokens(name: str) -> None:
    """LLaVA-1.5's number. Rounding may swap tokens of nearly equal gain, so greedy orders are checked pick by pick."""
    features, question = random_array(0, 1, 576, 32) + 0.5, random_array(1, 1, 7, 32)
    attention = np.abs(random_array(2, 1, 576))
    given, policy = evidence(features, question, attention, (24, 24)), POLICIES[name]()
    select = bare_session(name, (24, 24), 32)
    for kept in (1, 144, 576):
        _, indices, scores = run(select, features, question, kept, attention)
        assert indices[0].tolist() == keep_best_numpy(scores[0], kept).tolist()
        if isinstance(policy, SetPolicy):
            missed = policy.shortfall(given, kept, torch.from_numpy(scores))
            assert missed < 1e-5, f"{missed:.2e} of the first gain"
        else:
            assert indices[0].tolist() == policy.select(given, kept)[0].tolist()


@pytest.mark.parametrize("name", EXPORTABLE)
def test_behind_the_checkpoints_projector(checkpoint: Checkpoint, tmp_path: Path, name: str) -> None:
    """The graph as it is written, with weights, against the PyTorch network."""
    graph = select_graph(checkpoint, PolicySelector(POLICY_SPECS[name], (GRID, GRID)))
    write_graph(graph, checkpoint, tmp_path)
    model = ir.load(tmp_path / "select.onnx")
    assert not model.functions
    assert {node.domain for node in model.graph.all_nodes()} == {""}
    assert ("Loop" in {node.op_type for node in model.graph}) == (name in SET_BUILDING)
    assert b"stack_trace" not in (tmp_path / "select.onnx").read_bytes()
    select, network = session(tmp_path / "select.onnx"), network_with_weights(graph, checkpoint)
    features = random_array(1, 1, VISUAL_TOKENS, checkpoint.vision.width)
    question = random_array(2, 1, 3, checkpoint.text.width)
    attention = np.abs(random_array(3, 1, VISUAL_TOKENS))
    for kept in (1, 5, VISUAL_TOKENS):
        embeds, indices, scores = run(select, features, question, kept, attention)
        inputs = [features, question, np.array([kept]), attention][: len(select.get_inputs())]
        expected = network(*(torch.from_numpy(value) for value in inputs))
        np.testing.assert_array_equal(indices, expected[1])
        assert_close(f"kept embeddings at budget {kept}", embeds, expected[0])
        assert_close(f"scores at budget {kept}", scores, expected[2], 1e-6)
    assert indices[0].tolist() == list(range(VISUAL_TOKENS))


def test_inputs_and_outputs_have_their_names_and_dynamic_axes(checkpoint: Checkpoint) -> None:
    text, vision = checkpoint.text.width, checkpoint.vision.width
    common = {"features": [1, VISUAL_TOKENS, vision], "question_embeds": [1, "T", text], "budget": [1]}
    outputs = {"kept_embeds": [1, "K", text], "kept_indices": [1, "K"], "scores": [1, VISUAL_TOKENS]}
    for name in EXPORTABLE:
        with quiet_libraries():
            model = trace(select_graph(checkpoint, PolicySelector(POLICY_SPECS[name], (GRID, GRID))))
        attention = {"cls_attention": [1, VISUAL_TOKENS]} if CLS_ATTENTION in POLICY_SPECS[name].reads else {}
        for found, expected in ((model.graph.inputs, common | attention), (model.graph.outputs, outputs)):
            shapes = {value.name: [getattr(n, "value", n) for n in value.shape or ()] for value in found}
            assert shapes == expected, name


def test_the_sets_of_different_policies_differ(small: Sessions) -> None:
    features, question = random_array(5, 1, 12, WIDTH), random_array(6, 1, 4, WIDTH)
    attention = np.abs(random_array(7, 1, 12))
    sets = {name: tuple(run(small(name), features, question, 6, attention)[1][0].tolist()) for name in EXPORTABLE}
    same = [pair for pair in itertools.combinations(EXPORTABLE, 2) if sets[pair[0]] == sets[pair[1]]]
    assert not set(same) - {("cls", "visionzip")}, same
