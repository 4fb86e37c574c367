"""From a network to an ONNX graph whose weights are descriptions of what will be written (``weights``).

The network is built and traced under fake tensors, which have shapes but no data: memory does not grow with the
model. Passes then bring the graph to its target's form and precision. Not here: writing (``layout``, ``fill``).
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from onnxscript.optimizer import optimize
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from grip_edge.errors import UserError
from grip_edge.export.checkpoint import FLOAT_DTYPES, Checkpoint
from grip_edge.export.graphs import Graph
from grip_edge.export.networks.ops import TRANSLATIONS
from grip_edge.export.passes.drop_notes import DropNotes
from grip_edge.export.passes.editing import set_weight
from grip_edge.export.passes.fold_transposes import FoldTransposes
from grip_edge.export.prequantised import PackedMatrix
from grip_edge.export.targets.lowering import lower
from grip_edge.export.targets.table import CPU, Target
from grip_edge.export.unpacking import PackedWeight
from grip_edge.export.weights import FloatWeight, given_weight
from grip_edge.manifest import WeightFormats

OPSET = 24

_KEPT_AXIS = "K"


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
        if stored.dtype not in FLOAT_DTYPES:
            raise UserError(f"{where} is stored as {stored.dtype}; expected one of {', '.join(FLOAT_DTYPES)}.")


def make_model(graph: Graph, checkpoint: Checkpoint, formats: WeightFormats, target: Target = CPU) -> ir.Model:
    """The graph as the bundle will hold it, its weights still to be made."""
    model = trace(graph)
    describe_weights(model, graph, checkpoint)
    FoldTransposes()(model)
    optimize(model)
    lower(model, graph.file_name, target, formats)
    DropNotes()(model)
    return model


def describe_weights(model: ir.Model, graph: Graph, checkpoint: Checkpoint) -> None:
    """Initializers get the description of the tensor that they stand for."""
    for name, value in model.graph.initializers.items():
        set_weight(value, _describe(graph.source(name), value, checkpoint))


def _describe(source: str | Tensor, value: ir.Value, checkpoint: Checkpoint) -> FloatWeight:
    if isinstance(source, Tensor):
        return given_weight(source)
    if value.dtype is None:
        raise ValueError(f"initializer '{value.name}' has no type")
    stored = checkpoint.tensors[source]
    if isinstance(stored, PackedMatrix):
        return PackedWeight(value.dtype, stored, checkpoint.recipe(source), checkpoint.read_stored)
    shape = stored.shape
    return FloatWeight(value.dtype, shape, checkpoint.recipe(source), lambda: checkpoint.read(source))


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
