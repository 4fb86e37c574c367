"""ONNX Runtime GenAI on the language model alone: LLaVA is none of its model types."""

from __future__ import annotations

from benchmarks.peers.contestants import Contestant, Peer, Step, Work, file_bytes

PINS = (
    ("torch==2.13.0",),
    (
        "onnxruntime-genai==0.18.0",
        "onnxruntime==1.31.1",
        "onnx==1.23.2",
        "onnx-ir==1.1.0",
        "transformers==5.23.0",
        "pillow==13.0.0",
    ),
)
_BITS = {"int8": 8, "int4": 4}


def onnxruntime_genai(work: Work) -> Peer:
    return Peer(
        name="onnxruntime-genai",
        title="ONNX Runtime GenAI",
        pins=PINS,
        steps=tuple(_build(work, precision) for precision in _BITS),
        contestants=tuple(_contestant(work, precision) for precision in _BITS),
    )


def _build(work: Work, precision: str) -> Step:
    """With the LM head on the last token only, as the best that its builder offers."""
    out = work.converted(f"onnxruntime-genai-{precision}")
    arguments = ["-m", "onnxruntime_genai.models.builder", "-i", str(work.language_model), "-o", str(out)]
    arguments += ["-p", precision, "-e", "cpu", "-c", str(work.root / "hub-cache")]
    return Step(out.name, (*arguments, "--extra_options", "prune_lm_head=true"), out)


def _contestant(work: Work, precision: str) -> Contestant:
    folder = work.converted(f"onnxruntime-genai-{precision}")
    return Contestant(
        name=f"ONNX Runtime GenAI {precision}",
        worker="onnxruntime_genai",
        weights=precision,
        bits=_BITS[precision],
        folder=folder,
        decoder_bytes=file_bytes(folder / "model.onnx.data", unread=4 * work.shape.head_weights),
        sees=False,
    )
