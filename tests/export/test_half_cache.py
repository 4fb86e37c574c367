"""Keys and values in fp16. References: the same graphs with caches in fp32, and the network in PyTorch."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings

from grip_edge.bundle import MANIFEST_NAME, Bundle, open_bundle
from grip_edge.errors import UserError
from grip_edge.export import exporter, streamed_graph
from grip_edge.export.accuracy.calibrate import calibrate_bundle
from grip_edge.export.accuracy.candidate import Choices, write_candidate
from grip_edge.export.accuracy.options import CalibrationOptions
from grip_edge.export.checkpoint import open_checkpoint
from grip_edge.export.exporter import ExportOptions, export_bundle
from grip_edge.export.graphs import decoder_graph
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.targets.cached_attention import FuseCachedAttention
from grip_edge.export.targets.formats import formats_for_heads
from grip_edge.export.targets.half_cache import HalfCache, drop_half_cache
from grip_edge.export.targets.table import TARGETS
from grip_edge.manifest import Manifest
from grip_edge.runtime import Pipeline
from grip_edge.runtime.decoder import CachedDecoder
from tests.export.comparing import assert_close, network_with_weights
from tests.export.test_accuracy_measures import ASKED, questions
from tests.export.test_cached_attention import LAYERS, block, feeds_of, run_in_place

FP32 = PrecisionOptions().formats
HALF = PrecisionOptions(cache="fp16")
PROMPT = 24
# Of numbers about 1 in size: fp16 has 11 bits, and rounds before and after attention.
TOLERANCE = 0.01


@pytest.fixture(scope="module")
def half(wide_checkpoint: Path, wide_scorer: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Nothing but the cache in fewer bits."""
    out = tmp_path_factory.mktemp("half") / "bundle"
    return export_bundle(ExportOptions(str(wide_checkpoint), "0.1,0.5", wide_scorer, out, precision=HALF))


@pytest.fixture(scope="module")
def whole(wide_checkpoint: Path, wide_scorer: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("whole") / "bundle"
    return export_bundle(ExportOptions(str(wide_checkpoint), "0.1,0.5", wide_scorer, out))


def decoder(bundle: Bundle, capacity: int = PROMPT + 2) -> CachedDecoder:
    pipeline = Pipeline(bundle, 1, 0, "onnxruntime-cpu")
    return CachedDecoder(pipeline.graphs.decoder, bundle.manifest.model.text, capacity)


def cache_types(folder: Path) -> set[ir.DataType | None]:
    graph = ir.load(folder / "decoder.onnx").graph
    return {value.dtype for value in (*graph.inputs, *graph.outputs) if "cache_" in str(value.name)}


def test_prompts_in_parts_and_steps(half: Bundle, whole: Bundle, wide_checkpoint: Path) -> None:
    """Against the graph with caches in fp32 and against PyTorch over the whole sequence; written in place."""
    found, expected = decoder(half), decoder(whole)
    addresses = found.cache.addresses()
    assert 2 * found.cache.bytes == expected.cache.bytes
    text = half.manifest.model.text
    network = network_with_weights(decoder_graph(open_checkpoint(wide_checkpoint)), open_checkpoint(wide_checkpoint))
    embeds = Pipeline(half, 1).graphs.embed(tuple(range(5, 5 + PROMPT)))
    positions, start = np.arange(PROMPT)[None], 0
    for end in (9, PROMPT - 3, PROMPT - 2, PROMPT - 1, PROMPT):  # a prompt in two parts, steps
        piece = slice(start, end)
        logits, others = (run.append(embeds[:, piece], positions[:, piece]) for run in (found, expected))
        empty = tuple((torch.zeros(1, text.kv_heads, end, text.head_dim),) * 2 for _ in range(text.layers))
        inputs = (embeds[:, :end], positions[:, :end], np.array([0]))
        with torch.no_grad():
            reference, _ = network(*map(torch.from_numpy, inputs), empty)
        scale = float(np.abs(others).max())
        assert_close(f"logits of slot {end - 1}, fp32 cache", logits / scale, others / scale, TOLERANCE)
        assert_close(f"logits of slot {end - 1}, PyTorch", logits / scale, reference[0] / scale, TOLERANCE)
        start = end
    assert found.cache.addresses() == addresses
    assert [value.data_ptr() for value in found.new_binding().get_outputs()[: len(addresses)]] == list(
        addresses.values()
    )
    for name in addresses:
        kept, other = found.cache.array(name), expected.cache.array(name)
        assert kept.dtype == np.float16
        assert kept[:, :, :PROMPT].any(axis=-1).all()
        assert not kept[:, :, PROMPT:].any()
        assert_close(name, kept, other, TOLERANCE * np.abs(other).max())


@settings(max_examples=40, deadline=None)
@given(**LAYERS)
def test_one_layer(groups: int, per_group: int, dim: int, new: int, before: int, free: int, whole: bool) -> None:
    """Any number of heads, new and old tokens; and the graph before it comes back to the bit."""
    heads = groups * per_group
    model, plain = block(heads, groups, dim), block(heads, groups, dim)
    FuseCachedAttention()(model)
    FuseCachedAttention()(plain)
    assert HalfCache()(model).modified
    onnx.checker.check_model(ir.to_proto(model))  # the order of nodes, too
    feeds = feeds_of(heads, groups, dim, new, before, free)
    halves = {name: feed.astype(np.float16) if name.startswith("cache_") else feed for name, feed in feeds.items()}
    found, expected = run_in_place(model, halves, whole), run_in_place(plain, feeds, whole)
    assert found["y"].dtype == np.float32
    for name, reference in expected.items():
        assert_close(name, found[name], reference, TOLERANCE)
    drop_half_cache(model)
    onnx.checker.check_model(ir.to_proto(model))
    for name, array in run_in_place(model, feeds, whole).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="elsewhere scores may be fp16")
@pytest.mark.parametrize("new", [1, 30])
def test_scores_beyond_fp16(new: int) -> None:
    """Keys and queries of 1000 make scores of millions, which fp16 does not have; fp32 does."""
    model, plain = (block(2, 1, 64, "is_causal = 0") for _ in range(2))
    for each in (model, plain):
        FuseCachedAttention()(each)
    HalfCache()(model)
    feeds = feeds_of(2, 1, 64, new, 20, 3)
    for name in ("q", "k", "cache_key"):
        feeds[name] = 1000 * feeds[name]
    halves = {name: feed.astype(np.float16) if name.startswith("cache_") else feed for name, feed in feeds.items()}
    found, expected = run_in_place(model, halves, True), run_in_place(plain, feeds, True)
    assert_close("y", found["y"], expected["y"], TOLERANCE)


def test_caches_of_other_attention_stay_as_they_are() -> None:
    """One type for all: a second cache that no fused attention holds is enough."""
    model = block(2, 2, 8)
    assert not HalfCache()(model).modified
    FuseCachedAttention()(model)
    model.graph.inputs.append(ir.Value(name="cache_key_1", type=ir.TensorType(ir.DataType.FLOAT)))
    assert not HalfCache()(model).modified
    assert {value.dtype for value in model.graph.inputs} == {ir.DataType.FLOAT, ir.DataType.INT64}


def test_int4_has_it(wide_checkpoint: Path, wide_scorer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record says what the graph has; compared piece by piece, as big models are."""
    monkeypatch.setattr(exporter, "_WHOLE_PARAMETERS", 1_000)
    monkeypatch.setattr(streamed_graph, "_PIECE_ELEMENTS", 6_000)
    precision = PrecisionOptions("int4")
    bundle = export_bundle(
        ExportOptions(str(wide_checkpoint), "0.1,0.5", wide_scorer, tmp_path / "int4", precision=precision)
    )
    assert bundle.manifest.weight_formats == precision.formats
    assert bundle.manifest.parity_method == "streamed"
    assert precision.formats.cache == "fp16"
    assert cache_types(bundle.folder) == {ir.DataType.FLOAT16}


def test_heads_that_it_is_not_for(toy_checkpoint: Path, toy_scorer: Path, tmp_path: Path) -> None:
    """Heads of 12 keep the standard attention."""
    options = ExportOptions(str(toy_checkpoint), "0.1,0.5", toy_scorer, tmp_path / "bundle", precision=HALF)
    with pytest.raises(UserError, match=r"--cache-precision fp16 is for heads of a multiple of 8; .* width of 12"):
        export_bundle(options)
    int4 = PrecisionOptions("int4")
    assert formats_for_heads(int4.formats, int4, 12) == replace(int4.formats, cache="fp32")
    assert formats_for_heads(int4.formats, int4, 16) == int4.formats


def test_calibration_starts_from_it_and_leads_to_it(half: Bundle, whole: Bundle, tmp_path: Path) -> None:
    """From either float bundle the same graphs: int4 with the cache in fp16, fp32 with it in fp32."""
    for number, (formats, expected) in enumerate(
        ((PrecisionOptions("int4").formats, ir.DataType.FLOAT16), (FP32, ir.DataType.FLOAT))
    ):
        graphs = []
        for name, source in (("half", half), ("whole", whole)):
            folder = tmp_path / f"{name}-{number}"
            folder.mkdir()
            write_candidate(source, Choices(formats, {}, {}), folder)
            assert cache_types(folder) == {expected}
            graphs.append([(node.op_type, node.outputs[0].name) for node in ir.load(folder / "decoder.onnx").graph])
        assert graphs[0] == graphs[1]
    asked = questions(*(replace(prompt, budget_tokens=4) for prompt in ASKED.prompts))
    options = CalibrationOptions(half.folder, tmp_path / "int4", PrecisionOptions("int4"))
    bundle = calibrate_bundle(options, asked, asked, "planted")
    assert bundle.manifest.weight_formats == PrecisionOptions("int4").formats
    assert cache_types(bundle.folder) == {ir.DataType.FLOAT16}


@pytest.mark.parametrize("target", ["openvino", "rtx"])
def test_other_targets_start_from_it(half: Bundle, whole: Bundle, tmp_path: Path, target: str) -> None:
    """Their graphs are those that the bundle with the cache in fp32 leads to."""
    texts = []
    for source in (half, whole):
        folder = tmp_path / source.folder.parent.name
        folder.mkdir()
        write_candidate(source, Choices(replace(FP32, cache=None), {}, {}, TARGETS[target]), folder)
        texts.append([(node.op_type, node.outputs[0].name) for node in ir.load(folder / "decoder.onnx").graph])
        assert cache_types(folder) == {ir.DataType.FLOAT}
    assert texts[0] == texts[1]


def test_older_manifests_have_no_field_for_it(half: Bundle) -> None:
    data = json.loads((half.folder / MANIFEST_NAME).read_text())
    assert data["weight_formats"].pop("cache") == "fp16"
    formats = Manifest.from_json(json.dumps(data), "grip.json").weight_formats
    assert formats == replace(FP32, cache=None)
    assert open_bundle(half.folder).manifest.weight_formats == replace(FP32, cache="fp16")
