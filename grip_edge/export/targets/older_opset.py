"""Declares the target's opset where it is older than the one that graphs are traced in.

The operators that remain mean the same in both; where an attribute or input does not exist in the older one, the check
that follows names the node (``check``).
"""

from __future__ import annotations

import onnx_ir as ir


class OlderOpset(ir.passes.InPlacePass):
    def __init__(self, opset: int) -> None:
        self._opset = opset

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = model.opset_imports[""] > self._opset
        model.opset_imports[""] = min(model.opset_imports[""], self._opset)
        for node in model.graph.all_nodes():
            if not node.domain:
                node.version = None
        return ir.passes.PassResult(model, modified=modified)

    def ensures(self, model: ir.Model) -> None:
        if model.opset_imports[""] > self._opset:
            raise ir.passes.PostconditionError(f"the graph declares opset {model.opset_imports['']}")
