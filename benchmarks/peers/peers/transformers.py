"""transformers in PyTorch: what models are published for, and the reference of all others."""

from __future__ import annotations

from benchmarks.peers.contestants import Contestant, Peer, Work


def transformers(work: Work) -> Peer:
    def contestant(precision: str, bits: int) -> Contestant:
        return Contestant(
            name=f"transformers {precision}",
            worker="transformers",
            weights=precision,
            bits=bits,
            folder=work.model,
            decoder_bytes=lambda: work.shape.read_per_token * bits // 8,
            settings={"precision": precision},
        )

    return Peer("transformers", "transformers", (), (), (contestant("fp32", 32), contestant("bf16", 16)))
