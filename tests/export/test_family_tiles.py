"""Tiles: shares of the budget, pictures, and what does not fit. References: Webster's apportionment; transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from grip_edge.bundle import open_bundle
from grip_edge.errors import BudgetError, PromptError, UserError
from grip_edge.export.architecture import FAMILIES as FAMILIES_BY_TYPE
from grip_edge.export.architecture import decoder_config, parse_config, tiling_spec, tower_config
from grip_edge.export.checkpoint import Checkpoint, canonical_name, open_checkpoint
from grip_edge.export.exporter import ExportOptions, export_bundle
from grip_edge.export.graphs import bundle_graphs
from grip_edge.export.networks.tiled_select import shared_among_tiles
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.reference import synthetic_image
from grip_edge.export.selector import choose_selector
from grip_edge.hub import HUB_MODELS
from grip_edge.planning.published import PUBLISHED
from grip_edge.runtime import Pipeline
from grip_edge.runtime.image import open_image
from grip_edge.runtime.kept_image import draw_kept
from grip_edge.runtime.prompt import Prompt

QUESTION = "what is it?"


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
        chosen = pipeline.graphs.select(features, Prompt((), (), (5,)), kept, plan).kept_indices
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


def test_targets_that_do_not_fit(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> None:
    model = str(checkpoint_of("llava-onevision"))
    options = ExportOptions(model, "0.1,0.5", None, tmp_path / "b", target="rtx", policy="uniform")
    with pytest.raises(UserError, match=r"--target rtx: .* cuts images into tiles, which engines do not take"):
        export_bundle(options)


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


def test_names_of_every_age(checkpoint_of: Callable[[str], Path], tmp_path: Path) -> None:
    """Newer transformers put all but the head under ``model.``, older ones a tower's layers under ``vision_model.``."""
    source = checkpoint_of("llava-1.6-mistral")
    folder = tmp_path / "new"
    folder.mkdir()
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    inner = {"language_model.model.": "language_model.", "vision_tower.": "vision_tower.vision_model."}
    new = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for before, after in inner.items():
            name = name.replace(before, after)
        new["lm_head.weight" if name == "language_model.lm_head.weight" else f"model.{name}"] = tensor
    assert "model.image_newline" in new
    save_file(new, folder / "model.safetensors")
    found, expected = open_checkpoint(folder), open_checkpoint(source)
    assert found.tensors.keys() == expected.tensors.keys()
    for name in ("image_newline", "lm_head.weight", "language_model.norm.weight"):
        assert torch.equal(found.load(name), expected.load(name))


@pytest.mark.parametrize("name", ["llava-1.6-mistral-7b", "llava-onevision-0.5b"])
def test_published_sizes_have_every_weight(name: str) -> None:
    """Reference: transformers' model of the published configuration, without memory for its weights."""
    config = parse_config(PUBLISHED[name], name)
    assert config.model_type == HUB_MODELS[name].family
    with torch.device("meta"), quiet_libraries():
        model = FAMILIES_BY_TYPE[config.model_type].model(config)
    stored = {canonical_name(key): tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    tiling = tiling_spec(config)
    checkpoint = Checkpoint(Path(name), config, tower_config(config), decoder_config(config), {}, tiling)
    selector = choose_selector("uniform", None, name, checkpoint)
    for graph in bundle_graphs(checkpoint, selector):
        with FakeTensorMode():
            module, _ = graph.make()
        for parameter_name, parameter in (*module.named_parameters(), *module.named_buffers()):
            source = graph.source(parameter_name)
            if isinstance(source, str):
                assert stored[source] == tuple(parameter.shape), source
