"""Reference: the FLOPs that ``export.flops`` counts in the graphs of a real bundle, operator by operator."""

from __future__ import annotations

from pathlib import Path

import pytest

from grip_edge.export.flops import RequestSize, bundle_flops, graph_flops
from grip_edge.planning.find_config import find_shape
from grip_edge.planning.layers import ScorerShape
from grip_edge.planning.operations import decoder_operations, select_operations, vision_operations
from tests.toy_model import VISUAL_TOKENS

SCORER = ScorerShape(width=16)
TEXT, QUESTION = 21, 9


@pytest.mark.parametrize("kept", [2, 8, VISUAL_TOKENS])
def test_the_closed_form_is_what_the_graphs_hold(toy_checkpoint: Path, toy_bundle: Path, kept: int) -> None:
    model, _ = find_shape(str(toy_checkpoint))
    counted = bundle_flops(toy_bundle, RequestSize(kept, TEXT, QUESTION))
    assert vision_operations(model).total == counted.vision
    assert select_operations(model, kept, QUESTION, SCORER).total == counted.select
    assert decoder_operations(model.text, TEXT + kept, TEXT + kept).total == counted.prefill


def test_one_token_over_a_long_cache(toy_checkpoint: Path, toy_bundle: Path) -> None:
    import onnx_ir as ir

    model, _ = find_shape(str(toy_checkpoint))
    graph = ir.load(toy_bundle / "decoder.onnx").graph
    assert decoder_operations(model.text, 1, 50).total == graph_flops(graph, {"S": 1, "C": 50})
