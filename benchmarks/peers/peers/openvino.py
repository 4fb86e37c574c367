"""OpenVINO: its own pipeline for vision-language models, and its runtime driven with pruned embeddings.

Weights are converted by ``optimum-cli export openvino``. On a CPU with bfloat16, OpenVINO computes in that by default,
whatever the weights are; so it is measured.
"""

from __future__ import annotations

from benchmarks.peers.contestants import Contestant, Peer, Step, Work, file_bytes

PINS = (
    ("torch==2.13.0",),
    (
        "openvino==2026.4.1",
        "openvino-genai==2026.4.1",
        "optimum-intel==2.1.0",
        "optimum==2.3.0",
        "nncf==3.4.0",
        "transformers==5.5.4",
        "pillow==13.0.0",
    ),
)
_BITS = {"fp16": 16, "int8": 8, "int4": 4}
_OPTIONS = {"int4": ("--group-size", "32")}


def openvino(work: Work) -> Peer:
    own = [_contestant(work, precision, "GenAI", "openvino_genai") for precision in _BITS]
    by_hand = [_contestant(work, precision, "pruned", "openvino_embeds") for precision in _BITS]
    steps = tuple(step for precision in _BITS for step in (_export(work, precision), _copy_settings(work, precision)))
    return Peer("openvino", "OpenVINO", PINS, steps, (*own, *by_hand))


def _export(work: Work, precision: str) -> Step:
    out = work.converted(f"openvino-{precision}")
    arguments = ["-m", "optimum.commands.optimum_cli", "export", "openvino", "-m", str(work.model)]
    arguments += ["--task", "image-text-to-text", "--weight-format", precision, *_OPTIONS.get(precision, ()), str(out)]
    return Step(out.name, tuple(arguments), out)


def _copy_settings(work: Work, precision: str) -> Step:
    """GenAI reads the image settings from a file that the export does not write, and goes on without it."""
    out = work.converted(f"openvino-{precision}") / "preprocessor_config.json"
    copy = "import shutil, sys; shutil.copyfile(*sys.argv[1:])"
    return Step(f"{out.parent.name}-settings", ("-c", copy, str(work.model / out.name), str(out)), out)


def _contestant(work: Work, precision: str, kind: str, worker: str) -> Contestant:
    folder = work.converted(f"openvino-{precision}")
    own = kind == "GenAI"
    return Contestant(
        name=f"OpenVINO {kind} {precision}",
        worker=worker,
        weights=precision,
        bits=_BITS[precision],
        folder=folder,
        decoder_bytes=file_bytes(folder / "openvino_language_model.bin"),
        prunes=not own,
        by_hand=not own,
    )
