"""Reference: transformers. The check itself must fail on every kind of damage, or it checks nothing."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from grip_edge.budget import BudgetRange
from grip_edge.bundle import TOKENIZER_NAME, open_bundle
from grip_edge.errors import ParityError
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.graph_runner import GraphRunner, whole_session
from grip_edge.export.parity import TOLERANCE, check_parity
from grip_edge.export.processor import load_processor
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.reference import NEW_TOKENS, Reference, Request, make_request
from grip_edge.export.selector import Selector
from grip_edge.manifest import Manifest, ParityResult
from tests.export.comparing import FP32
from tests.toy_model import VISUAL_TOKENS

BUDGETS = BudgetRange(2, 8, VISUAL_TOKENS)


@pytest.fixture(scope="module")
def manifest(toy_bundle: Path) -> Manifest:
    return open_bundle(toy_bundle).manifest


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint, selector: Selector, manifest: Manifest) -> Reference:
    with quiet_libraries():
        return Reference(checkpoint, selector, manifest.prompt)


@pytest.fixture(scope="module")
def request_(checkpoint: Checkpoint, manifest: Manifest) -> Request:
    with quiet_libraries():
        processor = load_processor(checkpoint.folder)
        return make_request(processor, manifest.prompt, checkpoint.folder / TOKENIZER_NAME)


def check(folder: Path, manifest: Manifest, reference: Reference, request: Request) -> tuple[ParityResult, ...]:
    with quiet_libraries():
        return check_parity(runner(folder, manifest), reference, request, BUDGETS, FP32)


def runner(folder: Path, manifest: Manifest) -> GraphRunner:
    return GraphRunner(folder, manifest.model.text, manifest.prompt, manifest.session_config, whole_session)


def change_weight(folder: Path, graph: str, name: str, factor: float) -> None:
    """Scales one weight of a graph; the file is rewritten in place."""
    model = ir.load(folder / graph)
    value = model.graph.initializers[name]
    assert value.const_value is not None
    value.const_value = ir.tensor((value.const_value.numpy() * factor).astype(np.float32), name=name)
    ir.save(model, folder / graph, external_data=f"{graph}.data")


def test_a_good_bundle_agrees(toy_bundle: Path, manifest: Manifest, reference: Reference, request_: Request) -> None:
    results = check(toy_bundle, manifest, reference, request_)
    assert [result.budget_tokens for result in results] == [2, 8, VISUAL_TOKENS]
    for result in results:
        assert result.tokens_equal
        assert result.kept_sets_equal
        assert 0 <= result.logits_mean_difference <= result.logits_max_difference < TOLERANCE / 10
    recorded = {result.budget_tokens for result in manifest.parity}
    assert recorded == {2, 8, VISUAL_TOKENS}


def test_the_check_can_tell_budgets_and_tokens_apart(reference: Reference, request_: Request) -> None:
    """Answers differ between budgets and are not one token over and over: equality says something."""
    answers = [reference.answer(request_, kept) for kept in (2, 8, VISUAL_TOKENS)]
    for one, other in itertools.pairwise(answers):
        assert np.abs(one.logits - other.logits).max() > 100 * TOLERANCE
    assert len(set(answers[-1].tokens)) > 2
    assert len(answers[-1].tokens) == NEW_TOKENS


def test_the_unpruned_reference_is_the_pruned_path_with_all_tokens(
    reference: Reference, request_: Request, toy_bundle: Path, manifest: Manifest
) -> None:
    """plain ``generate`` on the processor's output equals the graphs at N; there is no third way at N."""
    graphs = runner(toy_bundle, manifest)
    found = graphs.answer(request_, graphs.encode(request_), VISUAL_TOKENS, NEW_TOKENS)
    expected = reference.answer(request_, VISUAL_TOKENS)
    assert found.kept_indices == tuple(range(VISUAL_TOKENS))
    assert found.tokens == expected.tokens


@pytest.mark.parametrize(
    ("graph", "weight", "factor", "expected"),
    [
        ("vision.onnx", "encoder.layers.0.mlp.fc1.weight", 1.01, "Vision features differ"),
        ("select.onnx", "scorer.to_score.weight", -1.0, "Kept tokens differ at 2 visual tokens"),
        ("select.onnx", "projector.linear_1.weight", 1.01, "Logits differ at 2 visual tokens"),
        ("decoder.onnx", "layers.1.self_attn.k_proj.weight", 1.01, "Logits differ"),
        ("decoder.onnx", "rotary_sin", 1.01, "Logits differ"),
        ("decoder.onnx", "lm_head.weight", float("nan"), "Logits differ"),
        ("embed.onnx", "embed_tokens.weight", 1.01, "differ"),
    ],
)
def test_a_tampered_weight_is_found(
    toy_bundle: Path,
    tmp_path: Path,
    manifest: Manifest,
    reference: Reference,
    request_: Request,
    graph: str,
    weight: str,
    factor: float,
    expected: str,
) -> None:
    folder = shutil.copytree(toy_bundle, tmp_path / "tampered")
    change_weight(folder, graph, weight, factor)
    with pytest.raises(ParityError, match=expected) as caught:
        check(folder, manifest, reference, request_)
    assert "\n" not in str(caught.value)


def test_other_greedy_tokens_are_found(
    toy_bundle: Path, manifest: Manifest, reference: Reference, request_: Request
) -> None:
    """The first token is a stop token for the graphs only: logits agree, tokens do not."""
    first = reference.answer(request_, BUDGETS.min_tokens).tokens[0]
    prompt = dataclasses.replace(manifest.prompt, stop_token_ids=(first,))
    with pytest.raises(ParityError, match="Greedy tokens differ at 2 visual tokens"):
        check(toy_bundle, dataclasses.replace(manifest, prompt=prompt), reference, request_)


def test_a_tokenizer_that_is_not_the_processors_is_found(
    checkpoint: Checkpoint, manifest: Manifest, tmp_path: Path
) -> None:
    other = tmp_path / TOKENIZER_NAME
    data = json.loads((checkpoint.folder / TOKENIZER_NAME).read_text(encoding="utf-8"))
    other.write_text(json.dumps(data | {"normalizer": None}), encoding="utf-8")
    with quiet_libraries(), pytest.raises(ParityError, match=r"tokenizer\.json encodes the prompt as"):
        make_request(load_processor(checkpoint.folder), manifest.prompt, other)
