"""Reference: the PyTorch networks with the checkpoint's weights, transformers, and the numpy oracle of selection."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from grip_edge.bundle import GRAPH_NAMES
from grip_edge.calibration.selection import keep_best_numpy
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.graphs import Graph, decoder_graph, embed_graph, select_graph, vision_graph
from grip_edge.export.networks.llama import LlamaDecoder
from grip_edge.export.networks.ops import keep_best
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.selector import Selector
from grip_edge.export.targets.cached_attention import DOMAIN
from grip_edge.export.targets.tower_attention import TOWER_ATTENTION
from grip_edge.export.tracing import trace
from tests.export.comparing import assert_close, network_with_weights, random_array, session, write_graph
from tests.toy_model import IMAGE_SIDE_PX, VISUAL_TOKENS, randomise

Sessions = Callable[[str], ort.InferenceSession]

# Standard operators of opset 24 that the graphs may hold, besides shape arithmetic and elementwise ones.
REQUIRED = {"decoder.onnx": {"Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter"}}


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_graphs_are_valid_and_standard_but_for_the_towers_attention(toy_bundle: Path, name: str) -> None:
    onnx.checker.check_model(str(toy_bundle / name), full_check=True)
    model = ir.load(toy_bundle / name)
    own = {(node.domain, node.op_type) for node in model.graph if node.domain}
    assert own == ({(DOMAIN, TOWER_ATTENTION)} if name == "vision.onnx" else set())
    assert dict(model.opset_imports) == {"": 24} | ({DOMAIN: 1} if own else {})
    assert not model.functions
    assert {node.op_type for node in model.graph} >= REQUIRED.get(name, set())


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_graphs_hold_no_paths_and_no_weight_transposes(toy_bundle: Path, name: str) -> None:
    data = (toy_bundle / name).read_bytes()
    assert str(Path(onnx.__file__).parents[1]).encode() not in data
    assert b"stack_trace" not in data
    for node in ir.load(toy_bundle / name).graph:
        assert node.op_type != "Transpose" or not node.inputs[0].is_initializer(), node.inputs[0].name  # type: ignore[union-attr]


def test_decoder_keeps_to_what_tensorrt_takes(toy_bundle: Path) -> None:
    """One explicit mask for all layers, no lengths or past inputs, caches from input to output, constant shapes."""
    graph = ir.load(toy_bundle / "decoder.onnx").graph
    nodes: dict[str, list[ir.Node]] = {}
    for node in graph:
        nodes.setdefault(node.op_type, []).append(node)
    assert all(len(node.inputs) == 4 and len(node.outputs) == 1 for node in nodes["Attention"])
    assert len({node.inputs[3] for node in nodes["Attention"]}) == 1
    assert len(nodes["LessOrEqual"]) == 1
    for node in nodes["TensorScatter"]:
        assert node.attributes["axis"].as_int() == -2
        assert node.attributes["mode"].as_string() == "linear"
        assert node.inputs[0] in graph.inputs
        assert node.outputs[0] in graph.outputs
    assert all(node.inputs[1].is_initializer() for node in nodes["Reshape"])  # type: ignore[union-attr]


def test_vision_and_embed(exported: Sessions, checkpoint: Checkpoint) -> None:
    pixels = random_array(0, 1, 3, IMAGE_SIDE_PX, IMAGE_SIDE_PX)
    (features,) = exported("vision.onnx").run(["features"], {"pixels": pixels})
    expected = network_with_weights(vision_graph(checkpoint), checkpoint)(torch.from_numpy(pixels))
    assert_close("features", features, expected)
    for length in (1, 9):
        ids = np.random.default_rng(length).integers(0, checkpoint.text.vocab_size, (1, length))
        (embeds,) = exported("embed.onnx").run(["embeds"], {"token_ids": ids})
        network = network_with_weights(embed_graph(checkpoint), checkpoint)
        assert_close("embeds", embeds, network(torch.from_numpy(ids)), tolerance=0.0)


@pytest.mark.parametrize("question_tokens", [1, 12])
def test_one_session_serves_every_budget(
    exported: Sessions, checkpoint: Checkpoint, selector: Selector, question_tokens: int
) -> None:
    """The budget is a graph input: no new session, and K follows it."""
    network = network_with_weights(select_graph(checkpoint, selector), checkpoint)
    select = exported("select.onnx")
    features = random_array(1, 1, VISUAL_TOKENS, checkpoint.vision.width)
    question = random_array(2, 1, question_tokens, checkpoint.text.width)
    kept_sets = set()
    for kept in range(1, VISUAL_TOKENS + 1):
        inputs = {"features": features, "question_embeds": question, "budget": np.array([kept])}
        embeds, indices, scores = select.run(["kept_embeds", "kept_indices", "scores"], inputs)
        assert indices.shape == (1, kept)
        np.testing.assert_array_equal(indices[0], keep_best_numpy(scores[0], kept))
        expected = network(*(torch.from_numpy(value) for value in inputs.values()))
        assert_close(f"scores at budget {kept}", scores, expected[2])
        np.testing.assert_array_equal(indices, expected[1])
        assert_close(f"kept embeddings at budget {kept}", embeds, expected[0])
        kept_sets.add(tuple(indices[0]))
    assert len(kept_sets) == VISUAL_TOKENS
    assert select.get_inputs()[2].name == "budget"
    assert select.get_inputs()[2].type == "tensor(int64)"


def test_the_full_budget_is_the_unpruned_model(exported: Sessions, checkpoint: Checkpoint, selector: Selector) -> None:
    features = random_array(3, 1, VISUAL_TOKENS, checkpoint.vision.width)
    question = random_array(4, 1, 3, checkpoint.text.width)
    inputs = {"features": features, "question_embeds": question, "budget": np.array([VISUAL_TOKENS])}
    embeds, indices, _ = exported("select.onnx").run(["kept_embeds", "kept_indices", "scores"], inputs)
    assert indices[0].tolist() == list(range(VISUAL_TOKENS))
    projector = network_with_weights(select_graph(checkpoint, selector), checkpoint).projector
    assert isinstance(projector, nn.Module)
    assert_close("embeddings", embeds, projector(torch.from_numpy(features)))


class _KeepBest(nn.Module):
    def forward(self, scores: Tensor, budget: Tensor) -> Tensor:
        kept: Tensor = keep_best(scores, budget)
        return kept


def test_ties_go_to_the_lower_index() -> None:
    """Few distinct scores over 100 tokens, every K; float and graph differ in nothing."""
    tokens = 100

    def make() -> tuple[nn.Module, tuple[Any, ...]]:
        return _KeepBest(), (torch.zeros(1, tokens), torch.ones(1, dtype=torch.int64))

    graph = Graph("keep.onnx", make, str, ("scores", "budget"), ("kept_indices",), ({}, {}))
    with quiet_libraries():
        keep = session(trace(graph))
    for seed in range(3):
        scores = np.random.default_rng(seed).choice([-1.5, 0.0, 0.25, 2.0], (1, tokens)).astype(np.float32)
        for kept in range(1, tokens + 1):
            (found,) = keep.run(None, {"scores": scores, "budget": np.array([kept])})
            np.testing.assert_array_equal(found[0], keep_best_numpy(scores[0], kept))


@pytest.mark.parametrize("spare_slots", [0, 5])
def test_decoder_prefill_and_steps(
    exported: Sessions, checkpoint: Checkpoint, toy_checkpoint: Path, spare_slots: int
) -> None:
    """Against transformers' decoder over the whole sequence at once; the cache also against the PyTorch network's."""
    decoder, network = exported("decoder.onnx"), network_with_weights(decoder_graph(checkpoint), checkpoint)
    text, total = checkpoint.text, 12
    embeds, positions = random_array(5, 1, total, text.width), np.arange(total)[None]
    with quiet_libraries():
        reference = LlavaForConditionalGeneration.from_pretrained(toy_checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        hidden = reference.model.language_model(inputs_embeds=torch.from_numpy(embeds)).last_hidden_state
        expected = reference.lm_head(hidden)[0]

    names = [f"cache_{kind}_{layer}" for layer in range(text.layers) for kind in ("key", "value")]
    shape = (1, text.kv_heads, total + spare_slots, text.head_dim)
    caches = {name: np.full(shape, 3.0, np.float32) for name in names}
    start = 0
    for end in (5, 6, 9, 10, 11, 12):  # prefill, a step, a chunk, steps
        piece = slice(start, end)
        inputs = {"embeds": embeds[:, piece], "position_ids": positions[:, piece], "write_start": np.array([start])}
        outputs = ["logits", *(f"new_{name}" for name in names)]
        logits, *new_caches = decoder.run(outputs, inputs | caches)
        assert_close(f"logits of position {end - 1}", logits[0], expected[end - 1])
        flat = [torch.from_numpy(cache) for cache in caches.values()]
        pairs = tuple(zip(flat[::2], flat[1::2], strict=True))
        _, expected_pairs = network(*(torch.from_numpy(value) for value in inputs.values()), pairs)
        for name, found, wanted in zip(names, new_caches, [c for pair in expected_pairs for c in pair], strict=True):
            assert_close(f"{name} after {end} tokens", found, wanted)
        caches, start = dict(zip(names, new_caches, strict=True)), end


@pytest.mark.parametrize(("heads", "kv_heads", "bias"), [(3, 3, True), (4, 2, True), (3, 1, False)])
def test_every_form_of_attention_exports(
    checkpoint: Checkpoint, tmp_path: Path, heads: int, kv_heads: int, bias: bool
) -> None:
    """Multi-head (as LLaVA-1.5 7B), grouped and multi-query attention, with and without biases."""
    text = dataclasses.replace(
        checkpoint.text,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=10,
        layers=1,
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=bias,
    )
    network = LlamaDecoder(text).eval()
    randomise(network)
    weights = dict(network.state_dict()) | dict(network.named_buffers())
    graph = dataclasses.replace(decoder_graph(dataclasses.replace(checkpoint, text=text)), source=weights.__getitem__)
    write_graph(graph, checkpoint, tmp_path)
    decoder = session(tmp_path / graph.file_name)
    cache = np.zeros((1, kv_heads, 8, 10), np.float32)
    inputs = {"embeds": random_array(6, 1, 5, text.width), "position_ids": np.arange(5)[None]}
    inputs["write_start"] = np.array([0])
    outputs = ["logits", "new_cache_key_0", "new_cache_value_0"]
    found = decoder.run(outputs, inputs | {"cache_key_0": cache, "cache_value_0": cache})
    pair = (torch.from_numpy(cache), torch.from_numpy(cache))
    logits, caches = network(*(torch.from_numpy(value) for value in inputs.values()), (pair,))
    for what, one, other in zip(("logits", "keys", "values"), found, (logits, *caches[0]), strict=True):
        assert_close(what, one, other)


def test_inputs_and_outputs_have_their_names_and_dynamic_axes(exported: Sessions, checkpoint: Checkpoint) -> None:
    text, vision = checkpoint.text, checkpoint.vision
    cache = [1, text.kv_heads, "C", text.head_dim]
    caches = {f"cache_{kind}_{layer}": cache for layer in range(text.layers) for kind in ("key", "value")}
    new_caches = {f"new_{name}": shape for name, shape in caches.items()}
    features = [1, VISUAL_TOKENS, vision.width]
    expected: dict[str, tuple[dict[str, list[Any]], dict[str, list[Any]]]] = {
        "vision.onnx": ({"pixels": [1, 3, IMAGE_SIDE_PX, IMAGE_SIDE_PX]}, {"features": features}),
        "embed.onnx": ({"token_ids": [1, "T"]}, {"embeds": [1, "T", text.width]}),
        "select.onnx": (
            {"features": features, "question_embeds": [1, "T", text.width], "budget": [1]},
            {"kept_embeds": [1, "K", text.width], "kept_indices": [1, "K"], "scores": [1, VISUAL_TOKENS]},
        ),
        "decoder.onnx": (
            {"embeds": [1, "S", text.width], "position_ids": [1, "S"], "write_start": [1], **caches},
            {"logits": [1, text.vocab_size], **new_caches, "next_token": [1, 1], "next_embeds": [1, 1, text.width]},
        ),
    }
    for name, (inputs, outputs) in expected.items():
        assert {value.name: value.shape for value in exported(name).get_inputs()} == inputs
        assert {value.name: value.shape for value in exported(name).get_outputs()} == outputs
