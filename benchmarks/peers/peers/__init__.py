"""The peers, in the order of the report."""

from __future__ import annotations

from benchmarks.peers.contestants import Peer, Work
from benchmarks.peers.peers.grip_edge import grip_edge
from benchmarks.peers.peers.transformers import transformers


def all_peers(work: Work) -> tuple[Peer, ...]:
    return (grip_edge(work), transformers(work))
