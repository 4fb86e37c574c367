"""grip-edge through its own command ``grip-edge export``, with an untrained scorer, so that choosing is paid for."""

from __future__ import annotations

from benchmarks.peers.contestants import Contestant, Peer, Step, Work, file_bytes

_BITS = {"fp32": 32, "int8": 8, "int4": 4}


def grip_edge(work: Work) -> Peer:
    return Peer(
        name="grip-edge",
        title="grip-edge",
        pins=(),
        steps=tuple(_export(work, precision) for precision in _BITS),
        contestants=tuple(_contestant(work, precision) for precision in _BITS),
    )


def _export(work: Work, precision: str) -> Step:
    out = work.converted(f"grip-edge-{precision}")
    arguments = ["-m", "grip_edge.cli.main", "export", "--model", str(work.model), "--budget-range", "0.1,0.5"]
    arguments += ["--precision", precision, "--out", str(out), "--force"]
    return Step(out.name, tuple(arguments), out)


def _contestant(work: Work, precision: str) -> Contestant:
    folder = work.converted(f"grip-edge-{precision}")
    return Contestant(
        name=f"grip-edge {precision}",
        worker="grip_edge",
        weights=precision,
        bits=_BITS[precision],
        folder=folder,
        decoder_bytes=file_bytes(folder / "decoder.onnx.data"),
    )
