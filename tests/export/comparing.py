"""What the tests of the export stage share: numeric comparison, networks with a checkpoint's weights, sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.graphs import Graph

TOLERANCE = 1e-4


def assert_close(what: str, found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Fails with the largest and the mean difference."""
    found, expected = (np.asarray(x.detach() if isinstance(x, Tensor) else x) for x in (found, expected))
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, expected {expected.shape}"
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    worst, mean = difference.max(initial=0.0), difference.mean()
    assert worst <= tolerance, f"{what}: max difference {worst:.3g}, mean {mean:.3g}, allowed {tolerance:.3g}"


def network_with_weights(graph: Graph, checkpoint: Checkpoint) -> nn.Module:
    """The graph's PyTorch network, filled from the checkpoint."""
    module, _ = graph.make()
    with torch.no_grad():
        for name, parameter in (*module.named_parameters(), *module.named_buffers()):
            source = graph.source(name)
            parameter.copy_(checkpoint.load(source) if isinstance(source, str) else source)
    return module.eval()


def session(model: Path | ir.Model) -> ort.InferenceSession:
    source = model if isinstance(model, Path) else ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(source, providers=["CPUExecutionProvider"])


def random_array(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
