"""The decoder of LLaVA-1.5-7B's shape with few layers and random weights: run on ONNX Runtime's CUDA, or built for RTX.

    python benchmarks/gpu/seven_b_shape.py out.json             prefill and decode at budgets 0.1 to 1.0 of 576 tokens
    python benchmarks/gpu/seven_b_shape.py out.json --build     engines of TensorRT-RTX by precision; needs no GPU

The cache stays on the device. Times for 32 layers are by proportion and leave out the LM head, which is small here.
Needs the extra [export].
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnxscript.optimizer import optimize

from grip_edge.export.fill import write_weights
from grip_edge.export.graphs import decoder_graph
from grip_edge.export.journal import Journal
from grip_edge.export.layout import lay_out, save_graph
from grip_edge.export.networks.llama import LlamaConfig
from grip_edge.export.networks.rope import Rope
from grip_edge.export.passes.drop_notes import DropNotes
from grip_edge.export.passes.editing import set_weight
from grip_edge.export.passes.fold_transposes import FoldTransposes
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.targets.formats import target_formats
from grip_edge.export.targets.lowering import lower
from grip_edge.export.targets.table import TARGETS
from grip_edge.export.tensorrt.engine import build_engine
from grip_edge.export.tensorrt.package import load_package
from grip_edge.export.tensorrt.request import BuildRequest, GraphRequest
from grip_edge.export.tracing import trace
from grip_edge.export.weights import FloatWeight
from grip_edge.manifest import TextSpec
from grip_edge.runtime.decoder import CachedDecoder

GRAPH = "decoder.onnx"
RUN_LAYERS, BUILD_LAYERS = 2, 1
TEXT_TOKENS, VISUAL_TOKENS = 48, 576
BUDGETS = (0.1, 0.25, 0.5, 1.0)
CAPACITY = 1024
REPEATS = 20


def shape(layers: int) -> LlamaConfig:
    return LlamaConfig(
        width=4096, layers=layers, heads=32, kv_heads=32, head_dim=128, mlp_width=11008, vocab_size=512,
        max_positions=CAPACITY, norm_eps=1e-5, rope=Rope(theta=10_000.0), qkv_bias=False, output_bias=False,
        mlp_bias=False,
    )  # fmt: skip


def traced_decoder(config: LlamaConfig) -> ir.Model:
    """As an export has it before it is lowered; weights are drawn when they are written."""
    checkpoint: Any = SimpleNamespace(text=config, config=SimpleNamespace(tie_word_embeddings=False))
    model = trace(decoder_graph(checkpoint))
    for name, value in model.graph.initializers.items():
        sizes = tuple(size for size in value.shape or () if isinstance(size, int))
        draw = partial(_random_weight, sizes)
        set_weight(value, FloatWeight(ir.DataType.FLOAT, sizes, f"random {name}", draw))
    FoldTransposes()(model)
    optimize(model)
    return model


def _random_weight(sizes: tuple[int, ...]) -> torch.Tensor:
    return 0.02 * torch.randn(sizes)


def write_decoder(traced: ir.Model, folder: Path, target_name: str, precision: str) -> None:
    model, target = traced.clone(), TARGETS[target_name]
    lower(model, GRAPH, target, target_formats(PrecisionOptions(precision), target))
    DropNotes()(model)
    layout = lay_out(model, GRAPH)
    save_graph(layout, folder)
    write_weights(layout, folder, Journal(folder), lambda place: None)


def run(layers: int) -> dict[str, Any]:
    config = shape(layers)
    spec = TextSpec(config.width, layers, config.heads, config.kv_heads, config.head_dim, config.vocab_size, CAPACITY)
    with tempfile.TemporaryDirectory() as folder:
        write_decoder(traced_decoder(config), Path(folder), "cuda", "fp16")
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        session = ort.InferenceSession(str(Path(folder) / GRAPH), providers=providers)
        if session.get_providers()[0] != providers[0]:
            sys.exit("ONNX Runtime fell back to the CPU; its log names the library that is missing")
        rows = [_measure(session, spec, budget) for budget in BUDGETS]
    return {"kind": "7B shape on CUDA", "layers": layers, "onnxruntime": ort.__version__, "rows": rows}


def _measure(session: ort.InferenceSession, spec: TextSpec, budget: float) -> dict[str, Any]:
    kept = round(budget * VISUAL_TOKENS)
    prompt = TEXT_TOKENS + kept
    embeds = np.random.default_rng(0).standard_normal((1, prompt, spec.width)).astype(np.float16)
    decoder = CachedDecoder(session, spec, prompt + 4, "cuda")

    def prefill() -> None:
        decoder.cache.filled = 0
        decoder.append(embeds, np.arange(prompt)[None])

    def step() -> None:
        decoder.cache.filled = prompt
        decoder.append(embeds[:, :1], np.array([[prompt]]))

    prefill_ms, step_ms = _median_ms(prefill), _median_ms(step)
    whole = 32 / spec.layers
    return {
        "budget": budget, "kept_tokens": kept, "prefill_ms": prefill_ms, "step_ms": step_ms,
        "prefill_32_layers_ms": prefill_ms * whole, "step_32_layers_ms": step_ms * whole,
    }  # fmt: skip


def _median_ms(work: Any) -> float:
    times = []
    for _ in range(REPEATS + 3):
        start = time.perf_counter()
        work()
        times.append(1000.0 * (time.perf_counter() - start))
    return float(np.median(times[3:]))


def build(layers: int) -> dict[str, Any]:
    package = load_package(TARGETS["rtx"])
    traced = traced_decoder(shape(layers))
    rows = []
    for precision in ("fp16", "int8-weight", "int4"):
        with tempfile.TemporaryDirectory() as folder:
            write_decoder(traced, Path(folder), "rtx", precision)
            axes = ({"S": (1, 192, 624)}, {"S": (1, 1, 624)})
            request = BuildRequest("rtx", folder, folder, (), CAPACITY, (89,), None, None)
            start = time.perf_counter()
            build_engine(package, request, GraphRequest(GRAPH, axes), lambda phase, share: True)
            seconds = time.perf_counter() - start
            weights, engine = (Path(folder) / name for name in (f"{GRAPH}.data", "decoder.engine"))
            row = {
                "precision": precision,
                "weights_bytes": weights.stat().st_size,
                "engine_bytes": engine.stat().st_size,
            }
            rows.append(row | {"build_s": round(seconds, 1)})
            print(rows[-1])
    return {"kind": "7B shape, engines", "layers": layers, "tensorrt_rtx": package.version, "rows": rows}


def main() -> None:
    with quiet_libraries():
        document = build(BUILD_LAYERS) if "--build" in sys.argv else run(RUN_LAYERS)
    Path(sys.argv[1]).write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
