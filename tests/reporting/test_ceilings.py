"""Ceilings. References: FLOPs and bytes of a decoder and a tower, written out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from grip_edge.bundle import open_bundle
from grip_edge.manifest import FileRecord, Manifest, WeightFormats
from grip_edge.planning.speed import Speed
from grip_edge.reporting.ceilings import decoder_work, row_ceilings, vision_work
from tests.reporting.made_up import rows

FP32 = WeightFormats("fp32", "fp32", "fp32", "fp32", None, None)
LINEAR = 1000  # weights of the decoder's layers


@pytest.fixture(scope="module")
def manifest(request: pytest.FixtureRequest) -> Manifest:
    found = open_bundle(request.getfixturevalue("toy_bundle")).manifest
    text = found.model.text
    sizes = {"decoder.onnx": 77, "decoder.onnx.data": 4 * (LINEAR + text.width * text.vocab_size), "vision.onnx": 4000}
    return replace(found, files=tuple(FileRecord(path, size, "") for path, size in sizes.items()))


def test_decoder(manifest: Manifest) -> None:
    text = manifest.model.text
    work = decoder_work(manifest, FP32, tokens=10, slots=12)
    head = text.width * text.vocab_size
    assert work.products == 2 * 10 * LINEAR + 2 * head
    assert work.attention == 4 * text.layers * 10 * 12 * text.heads * text.head_dim
    assert work.weight_bytes == 4 * (LINEAR + head)
    assert work.cache_bytes == 2 * text.layers * 12 * text.kv_heads * text.head_dim * 4
    assert 2 * decoder_work(manifest, replace(FP32, cache="fp16"), 10, 12).cache_bytes == work.cache_bytes


def test_vision(manifest: Manifest) -> None:
    vision = manifest.model.vision
    work = vision_work(manifest, FP32)  # the graph's own file holds its weights, since there is no other
    assert work.products == 2 * vision.visual_tokens * 1000
    assert work.attention == 4 * vision.layers * vision.visual_tokens**2 * vision.width


def test_the_slower_of_arithmetic_and_reading_counts(manifest: Manifest) -> None:
    row = rows()[0]
    work = decoder_work(manifest, FP32, 20 + row.kept_tokens, 20 + row.kept_tokens)
    fast = Speed({"fp32": 1e30}, {"fp32": 1e6}, 1e30, 1e30, 0.0, "made up")
    prefill = next(one for one in row_ceilings(row, manifest, FP32, 20, 8, fast) if one.stage == "prefill")
    assert prefill.ceiling_ms == pytest.approx(1000 * work.weight_bytes / 1e6)
    assert prefill.measured_ms == row.times_ms["prefill"].p50
    assert prefill.ratio == pytest.approx(prefill.ceiling_ms / prefill.measured_ms)
    slow = replace(fast, products={"fp32": 1e6}, rows={"fp32": 1e30})
    prefill = next(one for one in row_ceilings(row, manifest, FP32, 20, 8, slow) if one.stage == "prefill")
    assert prefill.ceiling_ms == pytest.approx(1000 * work.products / 1e6)
