"""Tokens one by one.

References: the same tokens as a prompt; the largest logit; bundles without next_token and next_embeds.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from grip_edge.bundle import Bundle, open_bundle, record_file
from grip_edge.engines import GREEDY_TOKEN, NEXT_EMBEDS
from grip_edge.errors import BundleError
from grip_edge.runtime import Pipeline
from grip_edge.runtime.decoder import CachedDecoder
from grip_edge.runtime.token_step import TokenStep
from tests.export.comparing import assert_close

CAPACITY = 24
TOKENS = (5, 9, 7, 5, 30)
QUESTION = "what is in it?"


def decoder(pipeline: Pipeline) -> CachedDecoder:
    return CachedDecoder(pipeline.graphs.decoder, pipeline.manifest.model.text, CAPACITY)


def append(pipeline: Pipeline, run: CachedDecoder, tokens: tuple[int, ...], start: int) -> np.ndarray:
    return run.append(pipeline.graphs.embed(tokens), np.arange(start, start + len(tokens))[None]).copy()


def test_a_step_equals_a_prompt_of_one_token(pipeline: Pipeline) -> None:
    found, expected = decoder(pipeline), decoder(pipeline)
    for run in (found, expected):
        append(pipeline, run, TOKENS, 0)
    step = TokenStep(pipeline.graphs._embed, found)
    for position, token in enumerate((8, 11, 6), len(TOKENS)):
        step.run(token, position)
        assert_close("logits", found.logits, append(pipeline, expected, (token,), position), 1e-5)
        assert found.likeliest_token() == int(found.logits.argmax())


def test_a_full_cache_takes_no_step(pipeline: Pipeline) -> None:
    run = decoder(pipeline)
    step = TokenStep(pipeline.graphs._embed, run)
    for position in range(CAPACITY):
        step.run(5, position)
    with pytest.raises(ValueError, match=f"{CAPACITY} \\+ 1 tokens exceed the cache of {CAPACITY}"):
        step.run(5, CAPACITY)


def edited(bundle_folder: Path, target: Path, edit: object) -> Bundle:
    """A copy with another decoder.onnx."""
    shutil.copytree(bundle_folder, target)
    model = onnx.load(target / "decoder.onnx", load_external_data=False)
    edit(model)  # type: ignore[operator]
    onnx.save(model, target / "decoder.onnx")
    bundle = Bundle(target, open_bundle(bundle_folder).manifest)
    files = tuple(
        record_file(target, target / record.path) if record.path == "decoder.onnx" else record
        for record in bundle.manifest.files
    )
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, files=files))


def without_next_embeds(model: onnx.ModelProto) -> None:
    (output,) = (output for output in model.graph.output if output.name == NEXT_EMBEDS)
    model.graph.output.remove(output)


def without_greedy_token(model: onnx.ModelProto) -> None:
    without_next_embeds(model)
    nodes, outputs = model.graph.node, model.graph.output
    for node in [node for node in nodes if GREEDY_TOKEN in node.input]:
        nodes.remove(node)
    (node,) = (node for node in nodes if GREEDY_TOKEN in node.output)
    (output,) = (output for output in outputs if output.name == GREEDY_TOKEN)
    nodes.remove(node)
    outputs.remove(output)


def with_nan(model: onnx.ModelProto) -> None:
    """The logits' NaN comes before the choice."""
    for node in model.graph.node:
        if "logits" in node.output:
            node.output[0] = "finite_logits"
    minus, root = onnx.helper.make_node("Neg", ["ones"], ["minus"]), onnx.helper.make_node("Sqrt", ["minus"], ["nan"])
    ones = onnx.numpy_helper.from_array(np.ones((1, 1), np.float32), "ones")
    model.graph.initializer.append(ones)
    choice = next(index for index, node in enumerate(model.graph.node) if GREEDY_TOKEN in node.output)
    for node in (onnx.helper.make_node("Add", ["finite_logits", "nan"], ["logits"]), root, minus):
        model.graph.node.insert(choice, node)


@pytest.mark.parametrize("without", [without_next_embeds, without_greedy_token])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 2.0, "seed": 3}])
def test_older_bundles_answer_the_same(
    pipeline: Pipeline, toy_bundle: Path, picture: Path, tmp_path: Path, without: object, sampling: dict[str, Any]
) -> None:
    older = Pipeline(edited(toy_bundle, tmp_path / "older", without), threads=1)
    assert NEXT_EMBEDS not in {node.name for node in older.graphs.decoder.get_outputs()}
    found, expected = (
        each.generate(picture, QUESTION, 8, 20, ignore_stop=True, **sampling) for each in (older, pipeline)
    )
    assert found.tokens == expected.tokens
    assert len(set(found.tokens)) > 1


def test_the_likeliest_token_comes_embedded(pipeline: Pipeline) -> None:
    """After a prompt, a token that was likeliest, and one that was not."""
    run = decoder(pipeline)
    step = TokenStep(pipeline.graphs._embed, run)
    append(pipeline, run, TOKENS, 0)
    for position, other in enumerate((False, True, False), len(TOKENS)):
        likeliest = run.likeliest_token()
        assert np.array_equal(run.next_embeds, pipeline.graphs.embed((likeliest,)))
        step.run(likeliest + other, position)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_is_an_error(toy_bundle: Path, picture: Path, tmp_path: Path, temperature: float) -> None:
    broken = Pipeline(edited(toy_bundle, tmp_path / "broken", with_nan), threads=1)
    with pytest.raises(BundleError, match="NaN"):
        broken.generate(picture, QUESTION, 8, 4, temperature=temperature)


def test_the_graph_gives_the_likeliest_token(pipeline: Pipeline) -> None:
    outputs = {node.name: (node.type, node.shape) for node in pipeline.graphs.decoder.get_outputs()}
    assert outputs[GREEDY_TOKEN] == ("tensor(int64)", [1, 1])
    assert outputs[NEXT_EMBEDS] == ("tensor(float)", [1, 1, pipeline.manifest.model.text.width])
