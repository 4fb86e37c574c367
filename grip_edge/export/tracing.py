"""From a network to an ONNX graph without weights, and from there to files.

The network is built and traced under fake tensors, which have shapes but no data: memory does not grow with the
model. The weights come afterwards, one at a time (``fill``).
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.fill import fill_and_save
from grip_edge.export.graphs import Graph
from grip_edge.export.networks.ops import TRANSLATIONS

OPSET = 24

_KEPT_AXIS = "K"

# Stored types whose numbers are the weights themselves; quantised checkpoints need scales that are not read here.
_FLOAT_DTYPES = ("F32", "F16", "BF16")


def check_weights(graph: Graph, checkpoint: Checkpoint) -> None:
    """UserError if the checkpoint lacks a tensor that the graph needs, or has it in another shape."""
    with FakeTensorMode():
        module, _ = graph.make()
    for name, parameter in (*module.named_parameters(), *module.named_buffers()):
        source = graph.source(name)
        if isinstance(source, Tensor):
            continue
        stored = checkpoint.tensors.get(source)
        if stored is None:
            raise UserError(f"'{checkpoint.folder}' holds no tensor '{source}'; the checkpoint is not complete.")
        where = f"{stored.file}: '{stored.name}'"
        if stored.shape != tuple(parameter.shape):
            found, expected = list(stored.shape), list(parameter.shape)
            raise UserError(f"{where} has shape {found}, config.json says {expected}; they are of different models.")
        if stored.dtype not in _FLOAT_DTYPES:
            raise UserError(f"{where} is stored as {stored.dtype}; expected one of {', '.join(_FLOAT_DTYPES)}.")


def write_graph(graph: Graph, checkpoint: Checkpoint, folder: Path) -> None:
    """Writes the graph and, beside it, its weights."""

    def load(name: str) -> Tensor:
        source = graph.source(name)
        return checkpoint.load(source) if isinstance(source, str) else source

    fill_and_save(trace(graph), load, folder / graph.file_name)


def trace(graph: Graph) -> ir.Model:
    """The graph in standard ONNX operators, its initializers still without data."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        module, inputs = graph.make()
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
            custom_translation_table=TRANSLATIONS,
            input_names=graph.input_names,
            output_names=graph.output_names,
            dynamic_shapes=graph.dynamic_shapes,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    _name_kept_axis(program.model)
    return program.model


def _name_kept_axis(model: ir.Model) -> None:
    """torch calls the axis whose length is decided at run time u0; here it is K, the kept tokens."""
    for value in (output for node in model.graph for output in node.outputs):
        if value.shape is not None:
            value.shape = ir.Shape(_KEPT_AXIS if str(axis) == "u0" else axis for axis in value.shape)
