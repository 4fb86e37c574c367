"""What the tests of the export stage share: numeric comparison, networks with a checkpoint's weights, sessions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.fill import write_weights
from grip_edge.export.graphs import Graph
from grip_edge.export.journal import Journal
from grip_edge.export.layout import Layout, lay_out, save_graph
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.targets.table import CPU, Target
from grip_edge.export.tracing import make_model
from grip_edge.manifest import WeightFormats

TOLERANCE = 1e-4
FP32 = PrecisionOptions().formats
# What all targets of ONNX Runtime have in common.
STANDARD = dataclasses.replace(CPU, cached_attention=False, tower_attention=False, block_products=False)


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


def write_graph(
    graph: Graph, checkpoint: Checkpoint, folder: Path, formats: WeightFormats = FP32, target: Target = CPU
) -> Layout:
    """The graph and its weights as an export writes them."""
    with quiet_libraries():
        layout = lay_out(make_model(graph, checkpoint, formats, target), graph.file_name)
    save_graph(layout, folder)
    write_weights(layout, folder, Journal(folder), lambda place: None)
    return layout


def session(model: Path | ir.Model) -> ort.InferenceSession:
    source = model if isinstance(model, Path) else ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(source, providers=["CPUExecutionProvider"])


def random_array(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
