"""LLaVA-NeXT and LLaVA-OneVision from checkpoint to answer. Reference: transformers on the same files and picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from grip_edge.bundle import TOKENIZER_NAME, open_bundle
from grip_edge.export import exporter, streamed_graph
from grip_edge.export.checkpoint import open_checkpoint
from grip_edge.export.exporter import ExportOptions, export_bundle
from grip_edge.export.graph_runner import GraphRunner, whole_session
from grip_edge.export.processor import load_processor
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.reference import GraphChoice, Reference, make_request, synthetic_image
from grip_edge.export.selector import choose_selector
from grip_edge.export.streamed_reference import StreamedReference
from grip_edge.manifest import Manifest
from grip_edge.runtime import Pipeline
from grip_edge.runtime.kept_image import draw_kept
from tests.export.comparing import assert_close
from tests.toy_families import FAMILIES, FAMILY_POLICIES, save_toy_siglip

# Height and width: one tile, two, all; hair-thin, whose detail is all padding; and one whose tokens are mixed.
SIZES = [(20, 30), (40, 90), (61, 57), (9, 200), (120, 118)]
QUESTION = "what is it?"


def transformers_tokens(folder: Path, image: Image.Image, text: str, count: int) -> list[int]:
    """Greedy, without the stop token."""
    checkpoint = open_checkpoint(folder)
    with quiet_libraries():
        model = checkpoint.model_class.from_pretrained(folder, dtype=torch.float32).eval()
        inputs = load_processor(folder, checkpoint.config.model_type)(images=image, text=text, return_tensors="pt")
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=count, do_sample=False)
    tokens: list[int] = output[0, inputs["input_ids"].shape[1] :].tolist()
    stop = model.config.text_config.eos_token_id
    return tokens[: tokens.index(stop)] if stop in tokens else tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_the_bundle_says_how_it_compares(family: str, bundle_of: Callable[[str], Path]) -> None:
    manifest = open_bundle(bundle_of(family)).manifest
    assert manifest.image.tiling is not None
    assert manifest.image.tiling.grid == 4
    assert manifest.model.architecture.startswith("LlavaOne" if family == "llava-onevision" else "LlavaNext")
    budgets = manifest.parity
    assert len(budgets) == 3
    assert budgets[-1].budget_tokens == budgets[-1].visual_tokens
    for result in budgets:
        assert result.logits_max_difference <= 1e-4
        assert result.tokens_equal
        assert result.kept_sets_equal
    assert Manifest.from_json(manifest.to_json(), "again") == manifest


@pytest.mark.parametrize("family", FAMILIES)
def test_unpruned_answers_are_transformers(
    family: str, checkpoint_of: Callable[[str], Path], bundle_of: Callable[[str], Path]
) -> None:
    """The whole way: our preprocessing, tiles, prompt, graphs and cache, for pictures of all shapes."""
    pipeline = Pipeline.load(bundle_of(family), threads=1, cached_images=0)
    text = pipeline.manifest.prompt.template.replace("{question}", QUESTION)
    for size in SIZES:
        image = synthetic_image(size)
        expected = transformers_tokens(checkpoint_of(family), image, text, 6)
        result = pipeline.generate(image, QUESTION, 1.0, max_new_tokens=6)
        assert list(result.tokens) == expected, f"{size}"
        assert result.kept_indices == tuple(range(result.budget.visual_tokens))


@pytest.mark.parametrize("family", FAMILIES)
def test_pruned_answers_are_transformers_on_the_kept_tokens(
    family: str, checkpoint_of: Callable[[str], Path], bundle_of: Callable[[str], Path]
) -> None:
    """Also between all patches and all tokens, where some newlines are kept; whole and streamed reference agree."""
    checkpoint, bundle = open_checkpoint(checkpoint_of(family)), open_bundle(bundle_of(family))
    prompt = bundle.manifest.prompt
    selector = choose_selector(FAMILY_POLICIES[family], None, family, checkpoint)
    with quiet_libraries():
        processor = load_processor(checkpoint.folder, checkpoint.config.model_type)
        references = Reference(checkpoint, selector, prompt), StreamedReference(checkpoint, selector, prompt)
    runner = GraphRunner(bundle.folder, bundle.manifest.model.text, prompt, {}, whole_session)
    for size in SIZES:
        request = make_request(processor, prompt, bundle.path(TOKENIZER_NAME), checkpoint.tiling, size)
        assert request.plan is not None
        vision = runner.encode(request)
        made, count = len(request.plan.sources), request.plan.visual_tokens
        for kept in sorted({1, made // 3, made, min(made + 1, count), count}):
            found = runner.answer(request, vision, kept, 3)
            assert found.scores is not None
            for reference in references:
                expected = reference.answer(request, kept, 3, GraphChoice(vision, found.scores))
                assert found.kept_indices == expected.kept_indices, f"{size}, {kept} of {count}"
                assert_close(f"logits of {size}, {kept} of {count}", found.logits, expected.logits)
                assert found.tokens == expected.tokens
            newlines = [index for index in found.kept_indices if request.plan.order[index] == made]
            assert len(newlines) == max(0, kept - made)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("question", [QUESTION, "a\nb  {c} 'd'", "что это? 这是什么"])
def test_prompts_are_the_processors(
    family: str, question: str, checkpoint_of: Callable[[str], Path], bundle_of: Callable[[str], Path]
) -> None:
    """Token for token; transformers repeats the image token as often as the image has tokens."""
    pipeline = Pipeline.load(bundle_of(family), threads=1)
    folder = checkpoint_of(family)
    processor = load_processor(folder, json.loads((folder / "config.json").read_text())["model_type"])
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    image = synthetic_image((40, 90))
    ids = processor(images=image, text=text, return_tensors="pt")["input_ids"][0].tolist()
    prompt, plan = pipeline.prompt_encoder.encode(question), pipeline.preprocess.plan(image)
    assert plan is not None
    repeated = [pipeline.manifest.prompt.image_token_id] * plan.visual_tokens
    assert [*prompt.before, *repeated, *prompt.after] == ids


def test_one_view_of_siglip(tmp_path: Path) -> None:
    """The whole image, stretched; every token a patch; QKV biases and a tied head behind it."""
    with quiet_libraries():
        folder = save_toy_siglip(tmp_path / "toy")
    bundle = export_bundle(ExportOptions(str(folder), "0.1,0.5", None, tmp_path / "bundle", policy="divprune"))
    assert bundle.manifest.image.stretch
    assert bundle.manifest.image.tiling is None
    assert max(result.logits_max_difference for result in bundle.manifest.parity) <= 1e-4
    pipeline = Pipeline.load(bundle.folder, threads=1)
    text = bundle.manifest.prompt.template.replace("{question}", QUESTION)
    for size in ((30, 30), (50, 120)):
        image = synthetic_image(size)
        expected = transformers_tokens(folder, image, text, 6)
        assert list(pipeline.generate(image, QUESTION, 1.0, max_new_tokens=6).tokens) == expected
    assert draw_kept(image, bundle.manifest, (0, 7)).size[0] > 600


def test_a_big_model_in_tiles_is_compared_piece_by_piece(
    checkpoint_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As LLaVA-OneVision-7B is: neither model is ever held whole."""
    monkeypatch.setattr(exporter, "_WHOLE_PARAMETERS", 1_000)
    monkeypatch.setattr(streamed_graph, "_PIECE_ELEMENTS", 6_000)
    options = ExportOptions(str(checkpoint_of("llava-onevision")), "0.1,0.5", None, tmp_path / "b", policy="divprune")
    manifest = export_bundle(options).manifest
    assert manifest.parity_method == "streamed"
    assert all(result.tokens_equal and result.kept_sets_equal for result in manifest.parity)
    assert max(result.logits_max_difference for result in manifest.parity) <= 1e-4
