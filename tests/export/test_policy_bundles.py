"""Bundles that select by a policy: what they say of themselves, what the comparison finds, and that they answer.

References: the policy in PyTorch, transformers, and the bundle with a scorer, which at N tokens is the same model.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from transformers import LlavaForConditionalGeneration

from grip_edge.budget import BudgetRange
from grip_edge.bundle import MANIFEST_NAME, Bundle, open_bundle
from grip_edge.calibration.policies import ClsAttention, Evidence
from grip_edge.cli.main import cli
from grip_edge.errors import BundleError, ParityError, UserError
from grip_edge.export import exporter, tracing
from grip_edge.export.checkpoint import Checkpoint, open_checkpoint
from grip_edge.export.exporter import ExportOptions, export_bundle
from grip_edge.export.graph_runner import GraphRunner, whole_session
from grip_edge.export.graphs import Graph
from grip_edge.export.parity import check_parity
from grip_edge.export.processor import load_processor
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.reference import GraphChoice, Reference, make_request, vision_cls_attention
from grip_edge.export.selector import PolicySelector, Seen, choose_selector
from grip_edge.export.streamed_reference import streamed_model
from grip_edge.export.targets.table import Target
from grip_edge.manifest import WeightFormats
from grip_edge.policy_catalog import POLICY_SPECS
from grip_edge.runtime import Pipeline
from tests.export.comparing import FP32, assert_close
from tests.toy_model import GRID, VISUAL_TOKENS

EXPORTABLE = [name for name, spec in POLICY_SPECS.items() if spec.exportable]
Bundles = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def bundles(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundles]:
    """A policy's bundle of the toy, made once. Graphs that no policy changes are traced once for all."""
    made: dict[str, Bundle] = {}
    traced: dict[str, ir.Model] = {}
    folder = tmp_path_factory.mktemp("policies")

    def make_model(graph: Graph, checkpoint: Checkpoint, formats: WeightFormats, target: Target) -> ir.Model:
        if graph.file_name not in ("embed.onnx", "decoder.onnx"):
            return tracing.make_model(graph, checkpoint, formats, target)
        if graph.file_name not in traced:
            traced[graph.file_name] = tracing.make_model(graph, checkpoint, formats, target)
        return traced[graph.file_name].clone()

    def get(name: str) -> Bundle:
        if name not in made:
            made[name] = export_bundle(ExportOptions(str(toy_checkpoint), "0.1,0.5", None, folder / name, policy=name))
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "make_model", make_model)
        yield get


@pytest.fixture
def picture() -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (72, 96, 3)).astype(np.uint8)
    return Image.fromarray(levels)


@pytest.mark.parametrize("name", EXPORTABLE)
def test_every_policy_exports_agrees_and_answers(
    bundles: Bundles, toy_bundle: Path, picture: Image.Image, name: str
) -> None:
    bundle = bundles(name)
    record = bundle.manifest.scorer
    assert (record.name, record.is_policy, record.parameters) == (name, True, 0)
    assert record.reads_cls_attention == (name in ("cls", "visionzip"))
    assert [result.budget_tokens for result in bundle.manifest.parity] == [2, 8, VISUAL_TOKENS]
    assert all(result.kept_sets_equal and result.tokens_equal for result in bundle.manifest.parity)
    pipeline = Pipeline(bundle, threads=1)
    unpruned = pipeline.generate(picture, "what is it?", 1.0, max_new_tokens=8)
    assert unpruned.tokens == Pipeline.load(toy_bundle, 1).generate(picture, "what is it?", 1.0, 8).tokens
    pruned = pipeline.generate(picture, "what is it?", 8, max_new_tokens=2)
    assert len(pruned.kept_indices) == 8
    assert pruned.timings.vision_cached


def test_a_follow_up_question_reads_the_cached_attention(bundles: Bundles, picture: Image.Image) -> None:
    pipeline = Pipeline(bundles("cls"), threads=1)
    first = pipeline.generate(picture, "what is it?", 4, max_new_tokens=1)
    second = pipeline.generate(picture, "where is it?", 4, max_new_tokens=1)
    assert (first.timings.vision_cached, second.timings.vision_cached) == (False, True)
    assert first.kept_indices == second.kept_indices  # it knows nothing of the question
    features, _ = pipeline.encode_image(pipeline.preprocess(picture))
    assert features.cls_attention is not None
    given = torch.from_numpy(features.cls_attention)
    unread = torch.zeros(1, VISUAL_TOKENS, 1)
    evidence = Evidence(unread, unread, given, unread, unread[..., 0].bool(), (GRID, GRID))
    assert list(first.kept_indices) == ClsAttention().select(evidence, 4)[0].tolist()


def test_inspect_names_the_policy(bundles: Bundles) -> None:
    shown = CliRunner().invoke(cli, ["inspect", str(bundles("cls").folder)]).stdout
    for text in ("cls (CLS attention (FasterVLM))", "2 tokens kept", "the same tokens and kept sets"):
        assert text in shown
    assert "parameters" not in shown


def test_a_bundle_whose_manifest_forgets_the_attention_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    folder = shutil.copytree(bundles("cls").folder, tmp_path / "bundle")
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest["scorer"]["reads_cls_attention"] = False
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"select\.onnx has the inputs features, .*, cls_attention; expected"):
        Pipeline(open_bundle(folder))


@pytest.mark.parametrize("name", ["cls", "divprune"])
def test_a_checkpoint_that_does_not_fit_in_memory(
    bundles: Bundles, toy_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The same graphs, compared piece by piece."""
    monkeypatch.setattr(exporter, "_WHOLE_PARAMETERS", 0)
    bundle = export_bundle(ExportOptions(str(toy_checkpoint), "0.1,0.5", None, tmp_path / name, policy=name))
    assert bundle.manifest.parity_method == "streamed"
    assert all(result.kept_sets_equal for result in bundle.manifest.parity)
    assert bundle.manifest.files == bundles(name).manifest.files


def compare(bundle: Bundle, folder: Path, toy_checkpoint: Path) -> None:
    """The check at the end of an export, on the graphs in ``folder``."""
    manifest, checkpoint = bundle.manifest, open_checkpoint(toy_checkpoint)
    with quiet_libraries():
        runner = GraphRunner(folder, manifest.model.text, manifest.prompt, manifest.session_config, whole_session)
        selector = choose_selector(manifest.scorer.name, None, "toy", checkpoint)
        reference = Reference(checkpoint, selector, manifest.prompt)
        request = make_request(load_processor(toy_checkpoint), manifest.prompt, folder / "tokenizer.json")
        check_parity(runner, reference, request, BudgetRange(2, 8, VISUAL_TOKENS), FP32)


def tamper(folder: Path, graph: str, change: Callable[[ir.Model], None]) -> None:
    model = ir.load(folder / graph)
    change(model)
    ir.save(model, folder / graph, external_data=f"{graph}.data")


def swap_first_of(op_type: str, replacement: str) -> Callable[[ir.Model], None]:
    """Another operator in the first such node, bodies of loops included."""

    def change(model: ir.Model) -> None:
        next(node for node in model.graph.all_nodes() if node.op_type == op_type).op_type = replacement

    return change


@pytest.mark.parametrize(
    ("name", "graph", "change", "expected"),
    [
        ("divprune", "select.onnx", swap_first_of("ArgMax", "ArgMin"), "Kept tokens differ at 2 visual tokens"),
        ("cdpruner", "select.onnx", swap_first_of("Sqrt", "Abs"), "Kept tokens differ at 8 visual tokens"),
        ("eadp", "select.onnx", swap_first_of("Relu", "Abs"), "Kept tokens differ at"),
        ("visionzip", "select.onnx", swap_first_of("Greater", "Less"), "Kept tokens differ at"),
        ("cls", "vision.onnx", swap_first_of("ReduceMean", "ReduceMax"), "CLS attention differs"),
    ],
)
def test_a_tampered_graph_is_found(
    bundles: Bundles, toy_checkpoint: Path, tmp_path: Path, name: str, graph: str, change: Any, expected: str
) -> None:
    bundle = bundles(name)
    folder = shutil.copytree(bundle.folder, tmp_path / "tampered")
    compare(bundle, folder, toy_checkpoint)
    tamper(folder, graph, change)
    with pytest.raises(ParityError, match=expected):
        compare(bundle, folder, toy_checkpoint)


def test_an_order_that_only_rounding_explains_is_the_references_own() -> None:
    """Tokens 0 and 1 gain alike up to 1e-7: which comes first is no fault. Token 2 gains less: taking it is one."""
    features = torch.eye(4)[None] * torch.tensor([1.0, 1.0, 1.0, 1.0])[:, None]
    features[0, 2, 3] = 0.5
    selector = PolicySelector(POLICY_SPECS["divprune"], (2, 2))
    orders = {"the lower first": [1.0, 0, 0, 0], "its equal first": [0, 1.0, 0, 0], "a worse one first": [0, 0, 1.0, 0]}
    kept = {}
    for what, scores in orders.items():
        seen = Seen(features, features, torch.ones(1, 1, 4), None, torch.tensor([scores]))
        kept[what] = selector.kept(seen, 1).tolist()
    assert kept == {"the lower first": [[0]], "its equal first": [[1]], "a worse one first": [[0]]}


def test_the_reference_attention_is_the_cls_row_of_the_selected_layer(
    checkpoint: Checkpoint, toy_checkpoint: Path, bundles: Bundles
) -> None:
    """Whole and streamed, against the tower run on its own with every attention; and set back afterwards."""
    with quiet_libraries():
        prompt = bundles("cls").manifest.prompt
        request = make_request(load_processor(toy_checkpoint), prompt, toy_checkpoint / "tokenizer.json")
        model: Any = LlavaForConditionalGeneration.from_pretrained(toy_checkpoint, dtype=torch.float32).eval()
        eager: Any = LlavaForConditionalGeneration.from_pretrained(
            toy_checkpoint, dtype=torch.float32, attn_implementation="eager"
        )
        usual = model.config.vision_config._attn_implementation
        found = vision_cls_attention(model, request)
        with torch.no_grad():
            layers = eager.model.vision_tower(request.pixels, output_attentions=True).attentions
    assert_close("attention", found, layers[model.config.vision_feature_layer].mean(dim=1)[:, 0, 1:], 1e-6)
    assert_close("streamed", vision_cls_attention(streamed_model(checkpoint), request), found, 1e-6)
    assert model.config.vision_config._attn_implementation == usual


def test_a_policy_is_compared_on_what_the_graph_saw(
    checkpoint: Checkpoint, toy_checkpoint: Path, bundles: Bundles
) -> None:
    """Other features and attention give other kept sets, as PyTorch chooses from them."""
    prompt = bundles("cls").manifest.prompt
    with quiet_libraries():
        request = make_request(load_processor(toy_checkpoint), prompt, toy_checkpoint / "tokenizer.json")
        reference = Reference(checkpoint, PolicySelector(POLICY_SPECS["cls"], (GRID, GRID)), prompt)
        vision = {"features": reference.features(request).numpy()}
        for best in (3, 11):
            attention = np.eye(VISUAL_TOKENS, dtype=np.float32)[[best]]
            graph = GraphChoice({**vision, "cls_attention": attention}, attention)
            assert reference.answer(request, 1, 1, graph).kept_indices == (best,)
        with pytest.raises(ValueError, match="what the graph saw"):
            reference.answer(request, 1, 1)


def test_a_tower_without_layers_has_no_attention(checkpoint: Checkpoint) -> None:
    flat = dataclasses.replace(checkpoint, vision=dataclasses.replace(checkpoint.vision, layers=0))
    assert choose_selector("divprune", None, "toy", flat).record.name == "divprune"
    with pytest.raises(UserError, match="--policy cls does not fit 'toy': its vision tower has no CLS attention"):
        choose_selector("cls", None, "toy", flat)
