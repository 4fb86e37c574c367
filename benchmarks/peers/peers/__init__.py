"""The peers, in the order of the report."""

from __future__ import annotations

from benchmarks.peers.contestants import Peer, Work
from benchmarks.peers.peers.grip_edge import grip_edge
from benchmarks.peers.peers.llama_cpp import llama_cpp
from benchmarks.peers.peers.onnxruntime_genai import onnxruntime_genai
from benchmarks.peers.peers.openvino import openvino
from benchmarks.peers.peers.optimum import optimum
from benchmarks.peers.peers.transformers import transformers


def all_peers(work: Work) -> tuple[Peer, ...]:
    makers = (grip_edge, transformers, openvino, llama_cpp, onnxruntime_genai, optimum)
    return tuple(maker(work) for maker in makers)
