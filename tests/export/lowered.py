"""The toy's graphs traced once, and lowered to any target from there."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript.optimizer import optimize

from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.graphs import bundle_graphs
from grip_edge.export.passes.drop_notes import DropNotes
from grip_edge.export.passes.fold_transposes import FoldTransposes
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.selector import Selector
from grip_edge.export.targets.formats import target_formats
from grip_edge.export.targets.lowering import lower
from grip_edge.export.targets.table import Target
from grip_edge.export.tracing import describe_weights, trace

GRAPHS = ("vision.onnx", "embed.onnx", "select.onnx", "decoder.onnx")


def traced_graphs(checkpoint: Checkpoint, selector: Selector) -> dict[str, ir.Model]:
    """As ``tracing.make_model`` has them before they are lowered."""
    models = {}
    with quiet_libraries():
        for graph in bundle_graphs(checkpoint, selector):
            model = trace(graph)
            describe_weights(model, graph, checkpoint)
            FoldTransposes()(model)
            optimize(model)
            models[graph.file_name] = model
    return models


def lowered(traced: ir.Model, file_name: str, target: Target, precision: str = "fp32") -> ir.Model:
    model = traced.clone()
    lower(model, file_name, target, target_formats(PrecisionOptions(precision), target))
    DropNotes()(model)
    return model


def node_kinds(model: ir.Model) -> set[str]:
    return {node.op_type for node in model.graph.all_nodes()}
