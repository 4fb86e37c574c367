"""Reference: PyTorch's own KL and argmax, brute force over all counts, the runtime's answers, and planted defects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grip_edge.bundle import Bundle, open_bundle
from grip_edge.errors import ParityError
from grip_edge.export import streamed_graph
from grip_edge.export.accuracy.candidate import Choices, write_candidate
from grip_edge.export.accuracy.cost import compare
from grip_edge.export.accuracy.decisions import Decisions, observe
from grip_edge.export.accuracy.float_bundle import float_model
from grip_edge.export.accuracy.forward import ForwardPass
from grip_edge.export.accuracy.groups import find_groups
from grip_edge.export.accuracy.options import CalibrationOptions
from grip_edge.export.accuracy.questions import AskedPrompt, Positions, QuestionSet
from grip_edge.export.accuracy.search import fewest_kept
from grip_edge.export.passes.editing import product_matrices
from grip_edge.export.passes.rescale_channels import Rescaling
from grip_edge.export.precision import PrecisionOptions, session_config
from grip_edge.runtime import Pipeline
from grip_edge.runtime.prompt import Prompt
from tests.export.comparing import assert_close, random_array
from tests.toy_model import IMAGE_SIDE_PX, VISUAL_TOKENS

FP32 = PrecisionOptions().formats


@pytest.fixture
def source(toy_bundle: Path) -> Bundle:
    return open_bundle(toy_bundle)


def prompt(budget_tokens: int, answer: tuple[int, ...], image: int = 0) -> AskedPrompt:
    return AskedPrompt(image, (1, 270), (261, 265, 280), (265, 280), answer, budget_tokens)


def questions(*prompts: AskedPrompt) -> QuestionSet:
    images = tuple(random_array(seed, 1, 3, IMAGE_SIDE_PX, IMAGE_SIDE_PX) for seed in (0, 1))
    return QuestionSet(images, prompts)


ASKED = questions(prompt(2, (263, 2)), prompt(8, (277, 264, 2), 1), prompt(VISUAL_TOKENS, (2,)))


def forward(source: Bundle, folder: Path | None = None, choices: Choices | None = None) -> ForwardPass:
    """The source, or what ``choices`` wrote to ``folder``."""
    config = source.manifest.session_config
    if choices is not None:
        config = session_config(choices.formats, choices.kept_formats, choices.has_fixed_scales)
    return ForwardPass(folder or source.folder, source.manifest.model.text, config)


def test_the_right_answer_of_a_model_is_what_the_runtime_says(source: Bundle) -> None:
    """Given the runtime's own greedy tokens as the right answer, each of them is the first choice."""
    pipeline = Pipeline(source)
    image = ASKED.pixels[0]
    for kept in (2, 8, VISUAL_TOKENS):
        one = prompt(kept, ())
        features, _ = pipeline.encode_image(image)
        embed = pipeline.graphs.embed
        chosen = pipeline.graphs.select(features, Prompt(one.before, one.after, one.question), kept).kept_embeds
        embeds = np.concatenate([embed(one.before), chosen, embed(one.after)], axis=1)
        tokens: list[int] = []
        found = None
        for _ in range(3):
            found = forward(source).logits(questions(replace(one, answer=(*tokens, 0))))
            text = source.manifest.model.text
            cache = {
                f"cache_{kind}_{layer}": np.zeros((1, text.kv_heads, embeds.shape[1], text.head_dim), np.float32)
                for layer in range(text.layers)
                for kind in ("key", "value")
            }
            feeds = {"embeds": embeds, "position_ids": np.arange(embeds.shape[1])[None], "write_start": np.array([0])}
            expected = pipeline.graphs.decoder.run(["logits"], {**feeds, **cache})[0][0]
            assert_close(f"logits at {kept} tokens, after {tokens}", found.logits[-1], expected, 1e-4)
            tokens.append(int(expected.argmax()))
            embeds = np.concatenate([embeds, embed((tokens[-1],))], axis=1)
        assert found is not None
        assert found.logits.argmax(axis=-1).tolist() == tokens


def test_pieces_change_nothing(source: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = forward(source).logits(ASKED)
    monkeypatch.setattr(streamed_graph, "_PIECE_ELEMENTS", 3000)
    pieces = forward(source).logits(ASKED)
    assert_close("logits", pieces.logits, whole.logits, 1e-4)
    assert pieces.right.tolist() == [263, 2, 277, 264, 2, 2]
    assert pieces.question.tolist() == [0, 0, 1, 1, 1, 2]


def test_cost_is_pytorch_s_kl_and_the_share_of_equal_choices() -> None:
    p, q = random_array(0, 6, 300) * 3, random_array(1, 6, 300) * 3
    right, owner = np.array([263, 2, 277, 264, 2, 2]), np.array([0, 0, 1, 1, 1, 2])
    p[2:, :] = q[2:, :]
    p[[0, 1], [263, 2]] = 99  # the float model answers the first question right
    q[5, 2] = p[5, 2] = 99  # and both the last
    found, reference = Positions(q, right, owner), Positions(p, right, owner)
    cost = compare(found, reference, ASKED)
    log_p, log_q = (torch.from_numpy(x).double().log_softmax(dim=-1) for x in (p, q))
    kl = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(dim=-1)
    assert cost.mean_kl == pytest.approx(float(kl.mean()))
    assert cost.p99_kl == pytest.approx(float(np.percentile(kl.numpy(), 99)))
    assert (cost.questions, cost.tokens) == (3, 6)
    assert cost.agreement == pytest.approx(4 / 6)
    assert cost.float_accuracy == pytest.approx(2 / 3)
    assert cost.accuracy == pytest.approx(1 / 3)
    assert compare(reference, reference, ASKED).mean_kl == 0


def test_answers_that_are_compared_in_part_have_no_accuracy() -> None:
    long = questions(prompt(2, tuple(range(3, 15))))
    assert len(long.prompts[0].compared) == 8
    logits = random_array(0, 8, 300)
    found = Positions(logits, np.arange(3, 11), np.zeros(8, np.int64))
    assert compare(found, found, long).accuracy is None


@given(layers=st.integers(0, 40), needed=st.integers(0, 50))
@settings(max_examples=200)
def test_the_fewest_kept_layers_are_found(layers: int, needed: int) -> None:
    """Brute force: the smallest count that meets the limit, among 0 .. layers; and no count is measured twice."""
    measured: list[int] = []

    def measure(count: int) -> int:
        measured.append(count)
        return count

    if needed > layers:
        with pytest.raises(ParityError, match=f"With all layers in more bits it is still at {layers};"):
            fewest_kept(layers, measure, lambda count: count >= needed, lambda count: f"at {count}")
    else:
        assert fewest_kept(layers, measure, lambda count: count >= needed, str) == (needed, needed)
    assert len(set(measured)) == len(measured)
    assert len(measured) <= 14


def options(precision: str, rescale: bool = True, target: str = "cpu") -> CalibrationOptions:
    return CalibrationOptions(Path("a"), Path("b"), PrecisionOptions(precision), rescale=rescale, target=target)


def rows_of(model: ir.Model, name: str) -> int:
    shape = model.graph.initializers[name].shape
    assert shape is not None
    return shape.numpy()[0]


def with_outliers(source: Bundle, folder: Path) -> Bundle:
    """The same model, but some channels behind the norms are 64 times as large, and their weights as much smaller."""
    rescalings: dict[str, list[Rescaling]] = {}
    for name in ("decoder.onnx", "vision.onnx"):
        model = float_model(source, name)
        groups = [group for group in find_groups(model, product_matrices(model)) if group.source_axis == 0]
        rescalings[name] = []
        for group in groups:
            if group.source:
                factors = torch.ones(rows_of(model, group.matrices[0]))
                factors[[3, 11]] = 1 / 64
                rescalings[name].append(Rescaling(group.matrices, group.source, 0, factors))
    write_candidate(source, Choices(FP32, {}, rescalings), folder)
    return replace(source, folder=folder)


@pytest.mark.parametrize(
    ("precision", "target", "share_left"),
    [("int8", "cpu", 0.5), ("int4", "cpu", 0.75), ("int8", "tensorrt-11", 0.5), ("int8", "tensorrt-10.3", 0.5)],
)
def test_planted_outliers_are_rescaled_away(
    source: Bundle, tmp_path: Path, precision: str, target: str, share_left: float
) -> None:
    """Two channels of 48 cost W8A8 its range and int4 the weights that matter; rescaling gives much of it back."""
    planted = with_outliers(source, tmp_path)
    reference = forward(planted).logits(ASKED)
    assert_close("the same model", reference.logits, forward(source).logits(ASKED).logits, 1e-3)
    costs = {}
    for rescale in (False, True):
        decisions = observe(planted, options(precision, rescale, target), ASKED)
        assert bool(decisions.rescaled_layers(0)) == rescale
        folder = tmp_path / f"rescale {rescale}"
        folder.mkdir()
        choices = decisions.choices(0)
        write_candidate(planted, choices, folder)
        costs[rescale] = compare(forward(planted, folder, choices).logits(ASKED), reference, ASKED).mean_kl
        assert all(one.error < one.plain_error for one in decisions.rescaled_layers(0))
    assert costs[True] < share_left * costs[False], costs


def test_int8_for_engines_has_the_range_of_each_input(source: Bundle) -> None:
    """The largest magnitude that the float model's questions give; layers in more bits are fp16 and need none."""
    decisions = observe(source, options("int8", rescale=False, target="tensorrt-10.3"), ASKED)
    layers = decisions.choices(0).layers["vision.onnx"].largest_inputs
    seen: list[float] = []

    class Largest:
        watched = ("gelu",)

        def see(self, name: str, array: Any) -> None:
            seen.append(float(np.abs(array).max()))

        def piece_done(self) -> None: ...

    model = float_model(source, "vision.onnx")
    reader = next(iter(model.graph.initializers["encoder.layers.0.mlp.fc2.weight"].consumers()))
    assert reader.inputs[0] is not None
    Largest.watched = (str(reader.inputs[0].name),)
    text = source.manifest.model.text
    ForwardPass(source.folder, text, source.manifest.session_config, {"vision.onnx": Largest()}).logits(ASKED)
    assert layers["encoder.layers.0.mlp.fc2.weight"] == pytest.approx(max(seen))
    everything = decisions.choices(len(decisions.ranking)).layers
    assert {scheme for of in everything.values() for scheme in of.kept.values()} == {"fp16"}
    assert not any(of.largest_inputs for of in everything.values())


def test_decisions_are_in_order_of_error_and_named(source: Bundle) -> None:
    decisions = observe(source, options("int8"), ASKED)
    errors = [finding.error for _, finding in decisions.ranking]
    assert errors == sorted(errors, reverse=True)
    layers = source.manifest.model
    assert len(errors) == 4 * layers.text.layers + 1 + 4 * layers.vision.layers + 2
    assert all(0 < error < 0.1 for error in errors), errors
    kept = decisions.kept_layers(3)
    assert {one.format for one in kept} <= {"int8-weight", "fp16"}
    chosen = {(graph, matrix) for graph, of in decisions.choices(3).layers.items() for matrix in of.kept}
    assert chosen == {(one.graph, matrix) for one in kept for matrix in one.matrices}
    rescaled = {one.matrices for one in decisions.rescaled_layers(3)}
    assert not rescaled & {one.matrices for one in kept}


def test_layers_beyond_fp16_are_named_and_stay_in_fp32(source: Bundle, tmp_path: Path) -> None:
    """The second layer of the vision tower is made to give values of some 10 million in its MLP."""
    fc1 = "encoder.layers.1.mlp.fc1.weight"
    model = float_model(source, "vision.onnx")
    width = rows_of(model, fc1)
    huge = Rescaling((fc1,), (), 0, torch.full((width,), 1e7))
    write_candidate(source, Choices(FP32, {}, {"vision.onnx": [huge]}), tmp_path)
    planted = replace(source, folder=tmp_path)
    decisions = observe(planted, options("fp16"), ASKED)
    first = decisions.wide[0]
    assert (first.graph, first.layer) == ("vision.onnx", "encoder.layers.1")
    assert decisions.wide[0].largest is not None
    assert decisions.wide[0].largest > 65504
    kept = decisions.choices(0).layers["vision.onnx"].kept
    assert kept[fc1] == "fp32"
    assert all(name.startswith("encoder.layers.1.") for name in kept)
    assert not any(name.startswith("encoder.layers.1.") for _, one in decisions.ranking for name in one.group.matrices)
    reasons = {(one.reason, one.format) for one in decisions.kept_layers(0)}
    assert reasons == {("beyond fp16", "fp32")}
    quantised = observe(planted, options("int8"), ASKED)
    assert quantised.wide
    assert not any(layers.kept for layers in quantised.choices(0).layers.values()), "int8 is computed in fp32 around it"


def test_a_model_without_wide_layers_has_none(source: Bundle) -> None:
    decisions: Decisions = observe(source, options("fp16"), ASKED)
    assert decisions.wide == ()
    assert decisions.rescaled_layers(0) == (), "rounding of floats gains nothing from it"
