"""Reference: the table in ``export.precision``, and the bundle that an export of the toy writes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from grip_edge.bundle import MANIFEST_NAME, open_bundle
from grip_edge.errors import UserError
from grip_edge.export.exporter import ExportOptions, export_bundle
from grip_edge.export.parity import LEAST_COSINE
from grip_edge.export.precision import PRECISIONS, PrecisionOptions, session_config
from grip_edge.manifest import Manifest, WeightFormats
from grip_edge.runtime import Pipeline
from grip_edge.runtime.onnx_backend import Graphs
from tests.toy_model import IMAGE_SIDE_PX


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (PrecisionOptions(), WeightFormats("fp32", "fp32", "fp32", "fp32", None, None, "fp32")),
        (PrecisionOptions("bf16"), WeightFormats("bf16", "bf16", "bf16", "bf16", None, None, "fp32")),
        (PrecisionOptions("int8"), WeightFormats("int8", "int8", "int8-weight", "int8", None, None, "fp32")),
        (PrecisionOptions("int8", cache="fp16"),
         WeightFormats("int8", "int8", "int8-weight", "int8", None, None, "fp16")),
        (PrecisionOptions("int4"), WeightFormats("int8-weight", "int4", "int8-weight", "int8", 64, False, "fp16")),
        (PrecisionOptions("int4", cache="fp32"),
         WeightFormats("int8-weight", "int4", "int8-weight", "int8", 64, False, "fp32")),
        (PrecisionOptions("int4", int4_block=128, int4_symmetric=True, embedding="fp16"),
         WeightFormats("int8-weight", "int4", "int8-weight", "fp16", 128, True, "fp16")),
        (PrecisionOptions("fp16", lm_head="int4"), WeightFormats("fp16", "fp16", "int4", "fp16", 64, False, "fp32")),
        (PrecisionOptions("int4", lm_head="fp32"),
         WeightFormats("int8-weight", "int4", "fp32", "int8", 64, False, "fp16")),
    ],
)  # fmt: skip
def test_formats(options: PrecisionOptions, expected: WeightFormats) -> None:
    assert options.formats == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"precision": "int2"}, "--precision int2 does not exist; choose from: fp32, fp16, bf16, int8, int8-weight"),
        ({"lm_head": "fp8"}, "--lm-head-precision fp8 does not exist"),
        ({"embedding": "int4"}, "--embedding-precision int4 does not exist; choose from: fp32, fp16, bf16, int8."),
        ({"precision": "int4", "int4_block": 48}, "--int4-block 48 does not exist; choose from: 32, 64, 128"),
        ({"cache": "int8"}, "--cache-precision int8 does not exist; choose from: fp32, fp16."),
        ({"precision": "int8", "int4_block": 32}, "--int4-block has no effect with --precision int8"),
        ({"int4_symmetric": False}, "--int4-asymmetric has no effect with --precision fp32"),
        ({"int4_symmetric": True}, "--int4-symmetric has no effect with --precision fp32"),
    ],
)
def test_wrong_options(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        PrecisionOptions(**changes)  # type: ignore[arg-type]


def test_every_reduced_precision_has_its_bound() -> None:
    assert set(LEAST_COSINE) == set(PRECISIONS) - {"fp32"}


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_a_bundle_of_fewer_bits_answers(
    toy_checkpoint: Path, toy_scorer: Path, toy_bundle: Path, tmp_path: Path, precision: str
) -> None:
    options = ExportOptions(
        str(toy_checkpoint), "0.1,0.5", toy_scorer, tmp_path / "bundle", precision=PrecisionOptions(precision)
    )
    bundle = export_bundle(options)
    manifest = bundle.manifest
    # The toy's heads keep the standard attention.
    formats = dataclasses.replace(PrecisionOptions(precision).formats, cache="fp32")
    assert (manifest.precision, manifest.weight_formats) == (precision, formats)
    assert manifest.session_config == session_config(PrecisionOptions(precision).formats)
    assert bundle.total_bytes < 0.7 * open_bundle(toy_bundle).total_bytes
    for result in manifest.parity:
        assert result.logits_cosine is not None
        assert LEAST_COSINE[precision] <= result.logits_cosine < 1
        assert result.tokens_compared
        assert 0 <= (result.tokens_agreeing or 0) <= result.tokens_compared
        assert 0.5 <= (result.kept_overlap or 0) <= 1
    answer = Pipeline.load(bundle.folder).generate(_picture(tmp_path), "what is it?", budget=4, max_new_tokens=3)
    assert len(answer.kept_indices) == 4


def _picture(folder: Path) -> Path:
    from PIL import Image

    Image.linear_gradient("L").resize((IMAGE_SIDE_PX, IMAGE_SIDE_PX)).convert("RGB").save(folder / "picture.png")
    return folder / "picture.png"


def test_bundles_of_the_first_schema_are_read(toy_bundle: Path) -> None:
    data = json.loads((toy_bundle / MANIFEST_NAME).read_text())
    data["schema_version"] = 1
    for name in ("weight_formats", "session_config", "parity_method"):
        del data[name]
    for result in data["parity"]:
        for name in ("logits_cosine", "tokens_agreeing", "tokens_compared", "kept_overlap"):
            del result[name]
    manifest = Manifest.from_json(json.dumps(data), "grip.json")
    assert (manifest.weight_formats, manifest.session_config, manifest.parity_method) == (None, {}, "whole")
    assert manifest.parity[0].logits_cosine is None


def test_the_runtime_tells_onnx_runtime_what_the_bundle_says(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime as ort

    told: list[tuple[str, str]] = []

    class Options(ort.SessionOptions):  # type: ignore[misc]
        def add_session_config_entry(self, key: str, value: str) -> None:
            told.append((key, value))
            super().add_session_config_entry(key, value)

    monkeypatch.setattr(ort, "SessionOptions", Options)
    bundle = open_bundle(toy_bundle)
    entry = ("session.qdq_matmulnbits_accuracy_level", "4")
    Graphs(dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, session_config=dict([entry]))))
    assert told.count(entry) == 4
