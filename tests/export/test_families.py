"""LLaVA-NeXT and LLaVA-OneVision from checkpoint to answer. Reference: transformers on the same files and picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from grip_edge.bundle import TOKENIZER_NAME, open_bundle
from grip_edge.errors import BudgetError, PromptError, UserError
from grip_edge.export.checkpoint import open_checkpoint
from grip_edge.export.exporter import ExportOptions, export_bundle
from grip_edge.export.graph_runner import GraphRunner, whole_session
from grip_edge.export.networks.tiled_select import shared_among_tiles
from grip_edge.export.processor import load_processor
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.reference import GraphChoice, Reference, make_request, synthetic_image
from grip_edge.export.selector import choose_selector
from grip_edge.export.streamed_reference import StreamedReference
from grip_edge.manifest import Manifest
from grip_edge.runtime import Pipeline
from grip_edge.runtime.image import open_image
from grip_edge.runtime.kept_image import draw_kept
from tests.export.comparing import assert_close
from tests.toy_families import FAMILIES, save_toy_family, save_toy_siglip

POLICIES = {"llava-1.6-vicuna": "cen-cdpruner", "llava-1.6-mistral": "cls", "llava-onevision": "divprune"}
# Height and width: one tile, two, all; hair-thin, whose detail is all padding; and one whose tokens are mixed.
SIZES = [(20, 30), (40, 90), (61, 57), (9, 200), (120, 118)]
QUESTION = "what is it?"


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
            export_bundle(ExportOptions(model, "0.1,0.5", None, folder / family, policy=POLICIES[family]))
        return folder / family

    return get


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
    selector = choose_selector(POLICIES[family], None, family, checkpoint)
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


def test_every_tile_keeps_its_share(bundle_of: Callable[[str], Path]) -> None:
    """Reference: Webster's apportionment, seat by seat; within a tile, the tokens of most CLS attention."""
    pipeline = Pipeline.load(bundle_of("llava-1.6-mistral"), threads=1)
    image = open_image(np.random.default_rng(0).integers(0, 256, (50, 37, 3)).astype(np.uint8))
    plan = pipeline.preprocess.plan(image)
    assert plan is not None
    features, _ = pipeline.encode_image(pipeline.preprocess(image))
    assert features.cls_attention is not None
    attention, tiles = features.cls_attention.ravel()[plan.sources[:, 0]], plan.sources[:, 0] // 16
    sizes = np.bincount(tiles)
    assert len(set(sizes.tolist())) > 1  # some tiles hold padding
    for kept in range(1, len(plan.sources) + 1):
        seats = np.zeros(len(sizes), int)
        for _ in range(kept):
            seats[np.argmax(sizes / (2 * seats + 1) - 1e9 * (seats == sizes))] += 1
        chosen = pipeline.graphs.select(features, pipeline.graphs.embed((5,)), kept, plan).kept_indices
        of_tokens = plan.order[chosen]
        assert abs(np.bincount(tiles[of_tokens], minlength=len(sizes)) - seats).max() <= 1  # ties are broken by place
        assert abs(np.bincount(tiles[of_tokens], minlength=len(sizes)) - kept * sizes / len(plan.sources)).max() < 2
        for tile in range(len(sizes)):
            mine = np.flatnonzero(tiles == tile)
            best = mine[np.argsort(-attention[mine], kind="stable")][: np.isin(mine, of_tokens).sum()]
            assert sorted(best.tolist()) == sorted(mine[np.isin(mine, of_tokens)].tolist())


def test_shares_grow_with_the_budget() -> None:
    """What a budget keeps, a larger one keeps too."""
    scores = torch.rand(1, 40, generator=torch.Generator().manual_seed(0))
    tiles = torch.tensor([0] * 9 + [1] * 30 + [2])
    order = shared_among_tiles(scores, tiles)[0].argsort(descending=True)
    counts: NDArray[Any] = np.array([np.bincount(tiles[order[:kept]], minlength=3) for kept in range(1, 41)])
    assert counts[-1].tolist() == [9, 30, 1]
    assert (abs(counts - np.outer(np.arange(1, 41), [9, 30, 1]) / 40) < 1).all()


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


def test_budgets_are_of_the_image(bundle_of: Callable[[str], Path]) -> None:
    pipeline = Pipeline.load(bundle_of("llava-1.6-vicuna"), threads=1)
    small, large = synthetic_image((9, 200)), synthetic_image((80, 80))
    uses = [pipeline.generate(image, QUESTION, 0.25, 1).budget for image in (small, large)]
    assert [use.visual_tokens for use in uses] == [16, 88]
    assert [use.kept_tokens for use in uses] == [4, 22]
    assert pipeline.generate(large, QUESTION, 30, 1).budget.kept_tokens == 30
    with pytest.raises(BudgetError, match="Budget 30 is more than the 16 visual tokens"):
        pipeline.generate(small, QUESTION, 30, 1)
    with pytest.raises(BudgetError, match=r"Budget 0\.9 keeps"):
        pipeline.stream(small, QUESTION, 0.9)
    with pytest.raises(PromptError, match="88 of the image"):
        pipeline.generate(large, "a " * 230, 1.0)


def test_the_picture_shows_both_views(bundle_of: Callable[[str], Path]) -> None:
    """White stays white where a patch is kept, and is dimmed elsewhere."""
    manifest = open_bundle(bundle_of("llava-1.6-vicuna")).manifest
    white = np.full((56, 56, 3), 255, np.uint8)
    drawn = np.asarray(draw_kept(white, manifest, (0, 5, 16, 87)))  # two of 16 patches, the first of 64, a newline
    side = drawn.shape[1] // 2 if drawn.shape[1] > drawn.shape[0] else drawn.shape[0] // 2
    small, detail = (
        (drawn[:, :side], drawn[:, -side:]) if drawn.shape[1] > drawn.shape[0] else (drawn[:side], drawn[-side:])
    )
    for view, rows, kept in ((small, 4, {0, 5}), (detail, 8, {0})):
        step = view.shape[0] / rows
        middles = {
            row * rows + column
            for row in range(rows)
            for column in range(rows)
            if view[int((row + 0.5) * step), int((column + 0.5) * step)].min() == 255
        }
        assert middles == kept


@pytest.mark.parametrize(
    ("family", "policy", "reason"),
    [
        ("llava-onevision", "cls", "its vision tower has no CLS attention"),
        ("llava-1.6-vicuna", "visionzip", "chooses within one view, it cuts images into tiles"),
        ("llava-1.6-vicuna", "eadp", "chooses within one view, it cuts images into tiles"),
        ("llava-1.6-vicuna", None, "for which there are no trained scorers; choose a policy with --policy"),
    ],
)
def test_policies_that_do_not_fit(
    family: str, policy: str | None, reason: str, checkpoint_of: Callable[[str], Path], tmp_path: Path
) -> None:
    options = ExportOptions(str(checkpoint_of(family)), "0.1,0.5", None, tmp_path / "b", policy=policy)
    with pytest.raises(UserError) as caught:
        export_bundle(options)
    assert reason in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("family", "change", "expected"),
    [
        ("llava-onevision", {"vision_aspect_ratio": "pad"}, "vision_aspect_ratio is 'pad'"),
        ("llava-onevision", {"vision_aspect_ratio": "anyres_max_9"}, "is anyres_max_4, that of config.json"),
        ("llava-1.6-vicuna", {"image_grid_pinpoints": [[28, 29]]}, "image_grid_pinpoints holds (28, 29)"),
        ("llava-1.6-vicuna", {"image_grid_pinpoints": [[28, 28]]}, "processor's image_grid_pinpoints is"),
        ("llava-1.6-vicuna", {"vision_feature_select_strategy": "full"}, "select_strategy is 'full'"),
    ],
)
def test_settings_that_do_not_fit(
    family: str, change: dict[str, Any], expected: str, checkpoint_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in checkpoint_of(family).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError) as caught:
        export_bundle(ExportOptions(str(folder), "0.1,0.5", None, tmp_path / "b", policy="uniform"))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
