"""Reference: the bytes of bundles that the export really writes, and of weights that ``export.quantise`` makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from grip_edge.bundle import MANIFEST_NAME, open_bundle
from grip_edge.export.exporter import ExportOptions, export_bundle
from grip_edge.export.precision import PRECISIONS, PrecisionOptions
from grip_edge.export.quantise import quantise_blocks, quantise_columns, quantise_rows
from grip_edge.manifest import Manifest
from grip_edge.planning.bundle_size import bundle_bytes
from grip_edge.planning.find_config import find_shape
from grip_edge.planning.formats import Matrix, matrix_bytes, table_bytes
from grip_edge.planning.layers import ScorerShape
from grip_edge.weight_blocks import fitting_block

SCORER = ScorerShape(width=16)
TOLERANCE = 0.1


def compare_with_forecast(manifest: Manifest, folder: Path, checkpoint: Path) -> None:
    model, tokenizer_bytes = find_shape(str(checkpoint))
    formats = PrecisionOptions(manifest.precision).formats
    forecast = bundle_bytes(model, formats, tokenizer_bytes, SCORER)
    written = sum(file.bytes for file in manifest.files)
    weights = sum(file.bytes for file in manifest.files if file.path.endswith(".data"))
    total = written + (folder / MANIFEST_NAME).stat().st_size
    assert forecast.weights == pytest.approx(weights, rel=TOLERANCE)
    assert forecast.total == pytest.approx(total, rel=TOLERANCE)


def test_fp32(toy_checkpoint: Path, toy_bundle: Path) -> None:
    compare_with_forecast(open_bundle(toy_bundle).manifest, toy_bundle, toy_checkpoint)


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_other_precisions(toy_checkpoint: Path, toy_scorer: Path, tmp_path: Path, precision: str) -> None:
    options = ExportOptions(
        model=str(toy_checkpoint),
        budget_range="0.1,0.5",
        scorer=toy_scorer,
        out=tmp_path / "bundle",
        precision=PrecisionOptions(precision),
    )
    bundle = export_bundle(options)
    compare_with_forecast(bundle.manifest, bundle.folder, toy_checkpoint)


@pytest.mark.parametrize(("inputs", "outputs"), [(256, 64), (200, 30)])
@pytest.mark.parametrize("block", [32, 128])
@pytest.mark.parametrize("symmetric", [True, False])
def test_int4_matrices(inputs: int, outputs: int, block: int, symmetric: bool) -> None:
    formats = PrecisionOptions("int4", int4_block=block, int4_symmetric=symmetric).formats
    parts = quantise_blocks(torch.randn(inputs, outputs), 4, fitting_block(inputs, block), symmetric)
    assert matrix_bytes(Matrix(inputs, outputs), "int4", formats) == sum(part.nbytes for part in parts)


@pytest.mark.parametrize(("inputs", "outputs"), [(256, 64), (200, 30)])
def test_int8_matrices_and_tables(inputs: int, outputs: int) -> None:
    formats, matrix = PrecisionOptions("int8").formats, Matrix(inputs, outputs)
    weight = torch.randn(inputs, outputs)
    assert matrix_bytes(matrix, "int8", formats) == sum(part.nbytes for part in quantise_columns(weight))
    blocks = quantise_blocks(weight, 8, fitting_block(inputs, 128), symmetric=True)
    assert matrix_bytes(matrix, "int8-weight", formats) == sum(part.nbytes for part in blocks)
    rows = quantise_rows(weight, fitting_block(outputs, 128))
    assert table_bytes(inputs, outputs, "int8") == sum(part.nbytes for part in rows)


def test_every_precision_of_the_export_has_a_forecast(toy_checkpoint: Path) -> None:
    model, _ = find_shape(str(toy_checkpoint))
    total = {name: bundle_bytes(model, PrecisionOptions(name).formats).weights for name in PRECISIONS}
    # In a model as narrow as this one, blocks of int8-weight are so small that their scales weigh more than int8's.
    assert total["int4"] < min(total["int8"], total["int8-weight"])
    assert max(total["int8"], total["int8-weight"]) < total["fp16"] == total["bf16"] < total["fp32"]
