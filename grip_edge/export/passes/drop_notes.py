"""Removes what tracing noted in the graph: source paths, stack traces, scopes.

leaves   no metadata on any node or value
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass


class DropNotes(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        ClearMetadataAndDocStringPass()(model)
        for value in _values(model):
            value.metadata_props.clear()
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        for owner in (*model.graph, *_values(model)):
            if owner.metadata_props:
                raise ir.passes.PostconditionError(f"'{owner.name}' still has notes")


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from (*model.graph.inputs, *model.graph.initializers.values())
    for node in model.graph:
        yield from node.outputs
