"""What the machine gives at this moment: bytes read per second, and operations per second of dynamically quantised
(W8A8) matrix products, as an int8 bundle runs them. Both by ``grip_edge.planning.cpu_speed``, the best of a few tries.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.peers.protocol import Message, serve
from benchmarks.peers.workers.common import versions
from grip_edge.export.precision import PrecisionOptions, session_config
from grip_edge.planning.cpu_speed import product_rate, read_rate


class Probe:
    def __init__(self, settings: Message) -> None:
        self._threads: int = settings["threads"]
        self._formats = PrecisionOptions("int8").formats

    def versions(self) -> Mapping[str, str]:
        return versions("onnxruntime", "numpy")

    def answer(self, kept: int, new_tokens: int) -> Message:
        """Takes no notice of what a model would be asked."""
        return {
            "read_bytes_per_sec": read_rate(self._threads),
            "int8_operations_per_sec": product_rate(
                "int8", self._formats, session_config(self._formats), self._threads
            ),
        }


if __name__ == "__main__":
    serve(Probe)
