"""grip-edge through its own commands ``export`` and ``calibrate``, with an untrained scorer, so that choosing is paid
for. On ONNX Runtime, and on OpenVINO in the precision that is for it.
"""

from __future__ import annotations

from benchmarks.peers.contestants import Contestant, Peer, Step, Work, file_bytes

_BITS = {"fp32": 32, "int8": 8, "int4": 4}


def grip_edge(work: Work) -> Peer:
    return Peer(
        name="grip-edge",
        title="grip-edge",
        pins=(),
        steps=(*(_export(work, precision) for precision in _BITS), _calibrate(work)),
        contestants=(*(_contestant(work, precision) for precision in _BITS), _on_openvino(work)),
    )


def _export(work: Work, precision: str) -> Step:
    out = work.converted(f"grip-edge-{precision}")
    arguments = ["-m", "grip_edge.cli.main", "export", "--model", str(work.model), "--budget-range", "0.1,0.5"]
    arguments += ["--precision", precision, "--out", str(out), "--force"]
    return Step(out.name, tuple(arguments), out)


def _calibrate(work: Work) -> Step:
    """Fixed scales want the ranges of values, for which a few pictures do: the weights are random."""
    out, source = work.converted("grip-edge-openvino-int8"), work.converted("grip-edge-fp32")
    arguments = ["-m", "grip_edge.cli.main", "calibrate", str(source), "--precision", "int8", "--target", "openvino"]
    arguments += ["--images", "2", "--questions-per-image", "1", "--out", str(out), "--force"]
    return Step(out.name, tuple(arguments), out)


def _on_openvino(work: Work) -> Contestant:
    folder = work.converted("grip-edge-openvino-int8")
    return Contestant(
        name="grip-edge int8 OpenVINO",
        worker="grip_edge_openvino",
        weights="int8",
        bits=8,
        folder=folder,
        decoder_bytes=file_bytes(folder / "decoder.onnx.data"),
    )


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
