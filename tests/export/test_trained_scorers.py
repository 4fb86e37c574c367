"""Reference: the export's own comparison with transformers, which a TPRL scorer passes as a GRIP scorer does."""

from __future__ import annotations

from pathlib import Path

import torch

from grip_edge.calibration.scorer_files import TPRL_METHOD, ScorerCard, save_scorer
from grip_edge.calibration.tprl.network import TprlConfig, TprlScorer
from grip_edge.export.exporter import export_bundle
from grip_edge.export.options import ExportOptions
from tests.toy_model import GRID


def test_a_tprl_scorer_is_exported_by_the_same_path(toy_checkpoint: Path, tmp_path: Path) -> None:
    """Of the default width, whose [width,1] matrices are stored as they are, not inside the graph."""
    torch.manual_seed(2)
    config = TprlConfig(vision_width=32, text_width=48, grid=(GRID, GRID), code=8, encoder_hidden=16)
    scorer = TprlScorer(config)
    with torch.no_grad():
        scorer.to_keep.weight.mul_(10)
    save_scorer(tmp_path / "scorer", scorer, ScorerCard(TPRL_METHOD, config, {"seed": 0}))
    options = ExportOptions(
        model=str(toy_checkpoint), budget_range="0.1,0.5", scorer=tmp_path / "scorer", out=tmp_path / "bundle"
    )
    manifest = export_bundle(options, None).manifest
    assert manifest.scorer.name == "TPRL"
    assert manifest.scorer.parameters == sum(parameter.numel() for parameter in scorer.parameters())
    assert len(manifest.parity) == 3
    assert all(result.kept_sets_equal and result.tokens_equal for result in manifest.parity)
