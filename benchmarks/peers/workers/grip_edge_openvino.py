"""grip-edge with its OpenVINO backend: as ``grip_edge``, but for what looks into the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from benchmarks.peers.protocol import Message, serve
from benchmarks.peers.workers.common import versions
from benchmarks.peers.workers.grip_edge import GripEdge
from grip_edge.runtime.openvino.decoder import StatefulDecoder
from grip_edge.runtime.openvino.graphs import OpenVinoGraphs


class GripEdgeOnOpenVino(GripEdge):
    def __init__(self, settings: Message) -> None:
        super().__init__(settings)
        self.runs.watch(ov.InferRequest, "infer")
        self.runs.watch(StatefulDecoder, "run")
        graphs = self.pipeline.graphs
        if not isinstance(graphs, OpenVinoGraphs):
            raise TypeError(f"the bundle runs on {graphs.backend}")

    def versions(self) -> Mapping[str, str]:
        return versions("grip-edge", "onnxruntime", "openvino")

    def logits(self, embeds: NDArray[Any]) -> NDArray[Any]:
        decoder: StatefulDecoder = self.pipeline.graphs.new_decoder()
        decoder.restart()
        return decoder.append(embeds, np.arange(embeds.shape[1])[None])

    def linear_layers(self, folder: Path) -> Message:
        """Not told apart: OpenVINO's own counters slow the run down."""
        return {}


if __name__ == "__main__":
    serve(GripEdgeOnOpenVino)
