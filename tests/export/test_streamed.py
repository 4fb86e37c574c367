"""Reference: the same comparison with both models whole. Streaming changes where weights are, not what is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from grip_edge.bundle import TOKENIZER_NAME, open_bundle
from grip_edge.errors import ParityError
from grip_edge.export import exporter, streamed_graph
from grip_edge.export.checkpoint import Checkpoint, open_checkpoint
from grip_edge.export.exporter import ExportOptions, export_bundle
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.processor import load_processor
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.reference import Reference, Request, make_request
from grip_edge.export.selector import Selector
from grip_edge.export.streamed_graph import Array, StreamedSession
from grip_edge.export.streamed_reference import StreamedReference, streamed_model
from grip_edge.manifest import Manifest
from tests.export.comparing import assert_close, random_array
from tests.toy_model import VISUAL_TOKENS, save_toy_checkpoint


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_graph, "_PIECE_ELEMENTS", 6_000)


@pytest.fixture(scope="module")
def manifest(toy_bundle: Path) -> Manifest:
    return open_bundle(toy_bundle).manifest


@pytest.fixture(scope="module")
def request_(checkpoint: Checkpoint, manifest: Manifest) -> Request:
    with quiet_libraries():
        processor = load_processor(checkpoint.folder)
        return make_request(processor, manifest.prompt, checkpoint.folder / TOKENIZER_NAME)


def test_a_graph_in_pieces_is_the_graph(toy_bundle: Path, checkpoint: Checkpoint, small_pieces: None) -> None:
    text = checkpoint.text
    caches = {f"cache_{kind}_{layer}": random_array(layer, 1, text.kv_heads, 8, text.head_dim)
              for layer in range(text.layers) for kind in ("key", "value")}  # fmt: skip
    feeds: dict[str, Array] = {"embeds": random_array(9, 1, 3, text.width), "position_ids": np.arange(3)[None]}
    feeds |= {"write_start": np.array([1]), **caches}
    path = toy_bundle / "decoder.onnx"
    streamed = StreamedSession(path, {})
    whole = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert len(list(streamed_graph.graph_pieces(streamed._model, ["logits"]))) > 8
    names = [output.name for output in whole.get_outputs()]
    for name, found, expected in zip(names, streamed.run(None, feeds), whole.run(None, feeds), strict=True):
        assert_close(name, found, expected, 1e-5)
    (logits,) = streamed.run(["logits"], feeds)
    assert_close("logits alone", logits, whole.run(["logits"], feeds)[0], 1e-5)


def test_pieces_hold_no_more_weights_than_allowed(toy_bundle: Path, small_pieces: None) -> None:
    """But for a single weight that is larger."""
    for piece in streamed_graph.graph_pieces(StreamedSession(toy_bundle / "decoder.onnx", {})._model, ["logits"]):
        sizes = [int(np.prod(weight.dims)) for weight in piece.weights]
        assert sum(sizes) <= 6_000 or len([size for size in sizes if size > 100]) == 1


@pytest.mark.parametrize("kept", [2, 8, VISUAL_TOKENS])
def test_the_streamed_reference_is_the_reference(
    checkpoint: Checkpoint, selector: Selector, manifest: Manifest, request_: Request, kept: int
) -> None:
    """Which at N is transformers' plain ``generate`` on the processor's output."""
    with quiet_libraries():
        whole = Reference(checkpoint, selector, manifest.prompt)
        streamed = StreamedReference(checkpoint, selector, manifest.prompt)
    assert_close("features", streamed.features(request_), whole.features(request_))
    found, expected = streamed.answer(request_, kept, 3), whole.answer(request_, kept, 3)
    assert found.kept_indices == expected.kept_indices
    assert found.tokens == expected.tokens
    assert_close("logits", found.logits, expected.logits)


@pytest.mark.parametrize("tied", [True, False])
def test_streamed_weights_are_transformers_weights_and_are_gone_afterwards(tmp_path: Path, tied: bool) -> None:
    folder = save_toy_checkpoint(tmp_path / "toy", seed=5, tied=tied)
    with quiet_libraries():
        model = streamed_model(open_checkpoint(folder))
        whole = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    embeds = torch.from_numpy(random_array(1, 1, 6, 48))
    with torch.no_grad():
        found, expected = (m(inputs_embeds=embeds, use_cache=False).logits for m in (model, whole))
    assert_close("logits", found, expected, 1e-5)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())


@pytest.mark.parametrize(
    ("precision", "target"),
    [("fp32", "cpu"), ("fp16", "cpu"), ("int8", "cpu"), ("int4", "cpu"), ("fp16", "rtx"), ("fp16", "tensorrt-10.3")],
)
def test_a_big_model_is_compared_piece_by_piece(
    toy_checkpoint: Path, toy_scorer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, target: str
) -> None:
    """The whole export as a big model goes through it; a wrong weight is found all the same."""
    monkeypatch.setattr(exporter, "_WHOLE_PARAMETERS", 1_000)
    monkeypatch.setattr(streamed_graph, "_PIECE_ELEMENTS", 6_000)
    formats = PrecisionOptions(precision)
    options = ExportOptions(str(toy_checkpoint), "0.1,0.5", toy_scorer, tmp_path / "bundle", target, formats)
    manifest = export_bundle(options).manifest
    assert (manifest.parity_method, manifest.precision) == ("streamed", precision)
    # The toy's heads keep the standard attention, and GPUs leave no choice.
    assert manifest.weight_formats == replace(formats.formats, cache="fp32" if target == "cpu" else None)
    assert [result.budget_tokens for result in manifest.parity] == [2, 8, VISUAL_TOKENS]
    assert [result.tokens_compared for result in manifest.parity] == [2, 1, 1]
    for result in manifest.parity:
        assert result.logits_cosine is not None
        assert result.logits_cosine > {"fp32": 0.999999, "fp16": 0.9999, "int8": 0.98, "int4": 0.75}[precision]
    if precision == "fp32":
        read = Checkpoint.read
        monkeypatch.setattr(
            Checkpoint, "read", lambda self, name: read(self, name) * (1.01 if "up_proj" in name else 1.0)
        )
        monkeypatch.setattr(Checkpoint, "load", lambda self, name: read(self, name).float())
        with pytest.raises(ParityError, match="Logits differ"):
            export_bundle(ExportOptions(str(toy_checkpoint), "0.1,0.5", toy_scorer, tmp_path / "wrong"))
        assert not (tmp_path / ".wrong.partial").exists()
