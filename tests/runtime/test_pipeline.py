"""From image and question to answer. References: transformers' generation on the same checkpoint; properties."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from grip_edge.budget import Budget
from grip_edge.bundle import open_bundle
from grip_edge.calibration.selection import keep_best_numpy
from grip_edge.errors import BudgetError, BundleError, PromptError, UserError
from grip_edge.runtime import Pipeline, onnx_generation
from grip_edge.runtime.image import open_image
from grip_edge.runtime.onnx_backend import ImageFeatures

QUESTION = "what is in it?"


def reference_tokens(checkpoint: Path, picture: Path, text: str, count: int) -> list[int]:
    """Greedy tokens of transformers, without the stop token."""
    import torch
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    model: Any = LlavaForConditionalGeneration.from_pretrained(checkpoint)
    inputs = LlavaProcessor.from_pretrained(checkpoint)(
        images=Image.open(picture).convert("RGB"), text=text, return_tensors="pt"
    )
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=count, do_sample=False)
    tokens: list[int] = output[0, inputs["input_ids"].shape[1] :].tolist()
    stop = model.config.text_config.eos_token_id
    return tokens[: tokens.index(stop)] if stop in tokens else tokens


@pytest.mark.parametrize("question", [QUESTION, "这是什么?", "a " * 40])
def test_unpruned_equals_transformers(pipeline: Pipeline, toy_checkpoint: Path, picture: Path, question: str) -> None:
    text = pipeline.manifest.prompt.template.replace("{question}", question)
    expected = reference_tokens(toy_checkpoint, picture, text, 24)
    for budget in ("1.0", pipeline.manifest.budget_range.visual_tokens):
        result = pipeline.generate(picture, question, budget, max_new_tokens=24)
        assert list(result.tokens) == expected
        assert result.kept_indices == tuple(range(16))
    assert len(expected) > 4


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_a_prompt_in_parts_equals_transformers(
    monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline, toy_checkpoint: Path, picture: Path, at_once: int
) -> None:
    monkeypatch.setattr(onnx_generation, "_TOKENS_AT_ONCE", at_once)
    text = pipeline.manifest.prompt.template.replace("{question}", QUESTION)
    expected = reference_tokens(toy_checkpoint, picture, text, 12)
    for _ in range(2):  # the second time in the memory of the first
        assert list(pipeline.generate(picture, QUESTION, 1.0, max_new_tokens=12).tokens) == expected


@pytest.mark.parametrize(("budget", "kept"), [(0.125, 2), ("0.25", 4), (8, 8), (Budget(ratio=0.5), 8), ("16", 16)])
def test_the_kept_tokens_are_the_best_scored(pipeline: Pipeline, picture: Path, budget: Any, kept: int) -> None:
    result = pipeline.generate(picture, QUESTION, budget, max_new_tokens=2)
    features, _ = pipeline.encode_image(pipeline.preprocess(open_image(picture)))
    scores = pipeline.graphs.select(features, pipeline.prompt_encoder.encode(QUESTION), kept).scores
    assert list(result.kept_indices) == keep_best_numpy(scores, kept).tolist()
    assert (result.budget.kept_tokens, result.budget.visual_tokens) == (kept, 16)


def test_the_budget_changes_the_answer(pipeline: Pipeline, picture: Path) -> None:
    tokens = {pipeline.generate(picture, QUESTION, budget, 24, ignore_stop=True).tokens for budget in (2, 4, 8, 16)}
    assert len(tokens) > 1


def test_the_document(pipeline: Pipeline, picture: Path) -> None:
    result = pipeline.generate(picture, QUESTION, 0.25, max_new_tokens=6, ignore_stop=True)
    document = result.to_dict()
    assert list(document) == [
        "answer", "tokens", "budget", "kept_indices", "timings_ms", "decode_tokens_per_sec", "backend", "bundle",
    ]  # fmt: skip
    assert document["budget"] == {"requested": 0.25, "kept_tokens": 4, "visual_tokens": 16}
    assert document["bundle"] == str(pipeline.bundle.folder)
    assert len(document["tokens"]) == 6
    times = document["timings_ms"]
    assert list(times) == ["preprocess", "vision", "select", "prefill", "decode", "ttft", "total"]
    assert all(time > 0 for time in times.values())
    stages = [times[name] for name in ("preprocess", "vision", "select", "prefill")]
    assert times["ttft"] == pytest.approx(sum(stages))
    assert times["total"] == pytest.approx(times["ttft"] + times["decode"])
    assert document["decode_tokens_per_sec"] == pytest.approx(5 / times["decode"] * 1000)


def test_one_token_has_no_rate(pipeline: Pipeline, picture: Path) -> None:
    assert pipeline.generate(picture, QUESTION, 4, 1, ignore_stop=True).decode_tokens_per_sec is None


@pytest.mark.parametrize("budget", [2, 16])
def test_pieces_join_to_the_answer(pipeline: Pipeline, picture: Path, budget: int) -> None:
    stream = pipeline.stream(picture, QUESTION, budget, 40, ignore_stop=True)
    pieces = list(stream)
    result = stream.result()
    assert len(pieces) > 1
    assert "".join(pieces) == result.answer
    assert len(result.tokens) == 40
    assert result.tokens == pipeline.generate(picture, QUESTION, budget, 40, ignore_stop=True).tokens


def test_a_result_may_be_asked_for_before_the_end(pipeline: Pipeline, picture: Path) -> None:
    stream = pipeline.stream(picture, QUESTION, 16, 20, ignore_stop=True)
    first = next(iter(stream))
    assert stream.result().answer.startswith(first)
    assert stream.result() is stream.result()


def test_the_time_of_the_reader_does_not_count(pipeline: Pipeline, picture: Path) -> None:
    stream = pipeline.stream(picture, QUESTION, 16, 20, ignore_stop=True)
    pieces = iter(stream)
    for _ in range(2):
        next(pieces)
        time.sleep(0.5)
    assert stream.result().timings.total_ms < 500
    assert sorted(stream.result().timings.token_ms) == list(stream.result().timings.token_ms)


def test_what_was_not_read_before_the_result_comes_in_one_piece(pipeline: Pipeline, picture: Path) -> None:
    stream = pipeline.stream(picture, QUESTION, 16, 20, ignore_stop=True)
    first = next(iter(stream))
    answer = stream.result().answer
    assert [first, *stream] == [first, answer.removeprefix(first)]
    assert list(stream) == []


def test_nothing_is_computed_before_the_first_piece_is_read(pipeline: Pipeline) -> None:
    stream = pipeline.stream("no-such-file.png", QUESTION)
    with pytest.raises(UserError, match="There is no image"):
        next(iter(stream))
    with pytest.raises(RuntimeError, match="ended with an error"):
        stream.result()


def test_the_stop_token_ends_the_answer_and_is_not_part_of_it(toy_bundle: Path, picture: Path) -> None:
    pipeline = Pipeline.load(toy_bundle, threads=1)
    endless = pipeline.generate(picture, QUESTION, 16, 20, ignore_stop=True).tokens
    stop = endless[5]
    prompt = dataclasses.replace(pipeline.manifest.prompt, stop_token_ids=(stop,))
    pipeline.manifest = dataclasses.replace(pipeline.manifest, prompt=prompt)
    streamed = pipeline.stream(picture, QUESTION, 16, 20)
    assert "".join(streamed) == streamed.result().answer
    for answer in (pipeline.generate(picture, QUESTION, 16, 20), streamed.result()):
        assert answer.tokens == endless[: endless.index(stop)]
        assert len(answer.timings.token_ms) == len(answer.tokens) + 1
    assert pipeline.generate(picture, QUESTION, 16, 20, ignore_stop=True).tokens == endless


def test_a_seed_repeats_a_drawn_answer(pipeline: Pipeline, picture: Path) -> None:
    answers = [
        pipeline.generate(picture, QUESTION, 16, 16, temperature=3.0, seed=seed, ignore_stop=True).tokens
        for seed in (1, 1, 2)
    ]
    assert answers[0] == answers[1] != answers[2]
    greedy = pipeline.generate(picture, QUESTION, 16, 16, ignore_stop=True).tokens
    narrow = pipeline.generate(picture, QUESTION, 16, 16, temperature=1.0, top_p=1e-6, ignore_stop=True).tokens
    assert narrow == greedy


class CountingGraphs:
    """Stands in for the graphs and counts the runs of the vision tower."""

    def __init__(self, graphs: Any) -> None:
        self._graphs = graphs
        self.encoded = 0

    def encode_image(self, pixels: np.ndarray) -> ImageFeatures:
        self.encoded += 1
        features: ImageFeatures = self._graphs.encode_image(pixels)
        return features

    def __getattr__(self, name: str) -> Any:
        return getattr(self._graphs, name)


@pytest.fixture
def counting(toy_bundle: Path) -> Pipeline:
    pipeline = Pipeline.load(toy_bundle, threads=1, cached_images=2)
    pipeline.graphs = CountingGraphs(pipeline.graphs)
    return pipeline


def test_a_second_question_does_not_encode_again(counting: Pipeline, pipeline: Pipeline, picture: Path) -> None:
    first = counting.generate(picture, QUESTION, 4, 8)
    again = counting.generate(np.asarray(open_image(picture)), "and where?", 2, 8)
    assert counting.graphs.encoded == 1
    assert (first.timings.vision_cached, again.timings.vision_cached) == (False, True)
    fresh = pipeline.generate(picture, "and where?", 2, 8)
    assert not fresh.timings.vision_cached
    assert (again.tokens, again.kept_indices) == (fresh.tokens, fresh.kept_indices)


def test_the_least_recently_used_image_is_forgotten(counting: Pipeline) -> None:
    images = [np.full((56, 56, 3), level, np.uint8) for level in (0, 100, 200)]
    encoded = []
    for index in (0, 1, 0, 2, 0, 1):
        counting.generate(images[index], QUESTION, 4, 1)
        encoded.append(counting.graphs.encoded)
    assert encoded == [1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (0, "keeps no token"),
        (-0.1, "not in (0, 1]"),
        (float("nan"), "not in (0, 1]"),
        (1.5, "not in (0, 1]"),
        (17, "more than the 16 visual tokens"),
        (1, "0.125 to 0.5 (2 to 8 tokens) and 1.0"),
        (0.9, "0.125 to 0.5 (2 to 8 tokens) and 1.0"),
    ],
)
def test_budgets_out_of_range_are_refused_at_once(pipeline: Pipeline, budget: float, message: str) -> None:
    with pytest.raises(BudgetError) as caught:
        pipeline.stream("not opened", QUESTION, budget)
    assert message in str(caught.value)


def test_a_prompt_longer_than_the_cache_tells_the_numbers(pipeline: Pipeline, picture: Path) -> None:
    with pytest.raises(PromptError) as caught:
        pipeline.generate(picture, "x" * 300, 4, 10)
    assert "10 new tokens" in str(caught.value)
    assert "the model has 256" in str(caught.value)


def test_the_model_is_filled_to_the_last_position(pipeline: Pipeline, picture: Path) -> None:
    prompt = pipeline.prompt_encoder.encode(QUESTION)
    room = 256 - len(prompt.before) - len(prompt.after) - 4
    assert len(pipeline.generate(picture, QUESTION, 4, room, ignore_stop=True).tokens) == room
    with pytest.raises(PromptError, match="but the model has 256"):
        pipeline.generate(picture, QUESTION, 4, room + 1)


@pytest.mark.parametrize("count", [0, -1])
def test_an_answer_has_at_least_one_token(pipeline: Pipeline, count: int) -> None:
    with pytest.raises(UserError, match=f"max-new-tokens is at least 1; got {count}"):
        pipeline.stream("not opened", QUESTION, max_new_tokens=count)


def test_original_positions(pipeline: Pipeline, toy_bundle: Path, picture: Path) -> None:
    """Kept tokens at their old places: same kept set, different logits, and the same answer unpruned."""
    bundle = open_bundle(toy_bundle)
    bundle = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, positions="original"))
    original = Pipeline(bundle, threads=1)
    unpruned = [each.generate(picture, QUESTION, 16, 16, ignore_stop=True) for each in (pipeline, original)]
    assert unpruned[0].tokens == unpruned[1].tokens
    pruned = [each.generate(picture, QUESTION, 2, 16, ignore_stop=True) for each in (pipeline, original)]
    assert pruned[0].kept_indices == pruned[1].kept_indices
    assert pruned[0].tokens != pruned[1].tokens
    with pytest.raises(PromptError, match="16 of the image"):
        original.generate(picture, QUESTION, 2, 230)


def test_a_positions_rule_from_the_future_is_refused(toy_bundle: Path) -> None:
    bundle = open_bundle(toy_bundle)
    foreign = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, positions="mrope"))
    with pytest.raises(BundleError, match="positions is 'mrope', expected one of reindexed, original"):
        Pipeline(foreign)


def test_threads_are_at_least_one(toy_bundle: Path) -> None:
    with pytest.raises(UserError, match="at least 1; got 0"):
        Pipeline.load(toy_bundle, threads=0)


def test_a_batch_equals_its_questions_one_by_one(pipeline: Pipeline, picture: Path) -> None:
    questions = [QUESTION, "how many?", QUESTION]
    batch = pipeline.generate_batch(picture, questions, 0.25, max_new_tokens=6)
    for question, found in zip(questions, batch, strict=True):
        expected = pipeline.generate(picture, question, 0.25, max_new_tokens=6)
        assert (found.tokens, found.kept_indices) == (expected.tokens, expected.kept_indices)


def test_a_batch_encodes_its_image_once(monkeypatch: pytest.MonkeyPatch, toy_bundle: Path, picture: Path) -> None:
    pipeline = Pipeline.load(toy_bundle, cached_images=0)
    encode = Mock(wraps=pipeline.encode_image)
    monkeypatch.setattr(pipeline, "encode_image", encode)
    results = pipeline.generate_batch(picture, ["a", "b", "c"], max_new_tokens=2)
    encode.assert_called_once()
    assert [one.timings.vision_cached for one in results] == [False, True, True]


def test_a_batch_with_a_question_that_is_too_long_answers_none(
    monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline, picture: Path
) -> None:
    monkeypatch.setattr(pipeline, "encode_image", lambda _: pytest.fail("the image was encoded"))
    with pytest.raises(PromptError, match="shorten the question"):
        pipeline.generate_batch(picture, [QUESTION, "a " * 500])
    assert pipeline.generate_batch(picture, []) == []
