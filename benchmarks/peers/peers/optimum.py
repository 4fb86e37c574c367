"""Optimum's ONNX export on the language model alone: it has no exporter for LLaVA."""

from __future__ import annotations

from benchmarks.peers.contestants import Contestant, Peer, Step, Work

PINS = (
    ("torch==2.13.0",),
    ("optimum-onnx==0.1.0", "optimum==2.1.0", "transformers==4.57.6", "onnxruntime==1.31.1", "pillow==13.0.0"),
)


def optimum(work: Work) -> Peer:
    out = work.converted("optimum-fp32")
    arguments = ["-m", "optimum.commands.optimum_cli", "export", "onnx", "--model", str(work.language_model)]
    arguments += ["--task", "text-generation-with-past", str(out)]
    contestant = Contestant(
        name="Optimum fp32",
        worker="optimum_onnx",
        weights="fp32",
        bits=32,
        folder=out,
        decoder_bytes=lambda: 4 * work.shape.read_per_token,
        sees=False,
    )
    return Peer("optimum", "Optimum", PINS, (Step(out.name, tuple(arguments), out),), (contestant,))
