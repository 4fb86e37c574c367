"""The likeliest token as an output of the decoder, so that greedy decoding reads one number instead of all logits.

logits ─ ArgMax ─▶ next_token int64 [1,1]

leaves   a graph with the output logits [1,V] has the output next_token too; other graphs are as they were
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from grip_edge.engines import GREEDY_TOKEN, NEXT_EMBEDS
from grip_edge.export.passes.editing import result

_LOGITS = "logits"


def drop_greedy_token(model: ir.Model) -> None:
    """The graph as it was before the pass, and before that token was embedded (``next_embeds``)."""
    added = [output for output in model.graph.outputs if output.name in (GREEDY_TOKEN, NEXT_EMBEDS)]
    for output in added:
        model.graph.outputs.remove(output)
    if added:
        RemoveUnusedNodesPass()(model)


class AddGreedyToken(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        logits = next((output for output in model.graph.outputs if output.name == _LOGITS), None)
        if logits is not None:
            token = result(GREEDY_TOKEN, ir.DataType.INT64, [1, 1])
            model.graph.append(ir.node("ArgMax", [logits], {"axis": -1, "keepdims": 1}, outputs=[token]))
            model.graph.outputs.append(token)
        return ir.passes.PassResult(model, modified=logits is not None)
