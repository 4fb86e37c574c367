"""Selection as one node, ``grip::BudgetSelect``, which a plugin can take over and any runtime can run.

    scores [B,N], features [B,N,D], budget int64 [1]  ->  kept [B,K,D], indices int64 [B,K]

Indices ascend; ties go to the lower index; NaN counts as -infinity. In the file the node is a call of a model-local
function whose body is standard ONNX, so ONNX Runtime runs it as it stands. TensorRT inlines the body, or calls the
plugin of ``grip_edge.plugin`` where a build uses it: the node's attributes tell its parser the plugin's namespace and
version, and that the budget is a shape.

    needs    the selection of ``networks.select``: two TopK, then Gather of the rows
    leaves   one BudgetSelect and its function; a graph that selects in another way stays as it is
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from grip_edge.export.passes.editing import maker, result
from grip_edge.plugin.interface import NAME as BUDGET_SELECT
from grip_edge.plugin.interface import NAMESPACE as DOMAIN
from grip_edge.plugin.interface import SHAPE_INPUTS
from grip_edge.plugin.interface import VERSION as PLUGIN_VERSION

__all__ = ["BUDGET_SELECT", "DOMAIN", "PLUGIN_VERSION", "CarryBudgetSelect", "budget_select_function"]

_FUNCTION_OPSET = 18
_PLUGIN_ATTRIBUTES: dict[str, str | Sequence[int]] = {
    "plugin_namespace": DOMAIN,
    "plugin_version": PLUGIN_VERSION,
    "tensorrt_plugin_shape_input_indices": list(SHAPE_INPUTS),
}


class CarryBudgetSelect(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        matches = [match for node in model.graph if (match := _match(node)) is not None]
        if len(matches) != 1:
            return ir.passes.PassResult(model, modified=False)
        _replace(model.graph, *matches[0])
        RemoveUnusedNodesPass()(model)
        function = budget_select_function()
        model.functions[function.identifier()] = function
        model.opset_imports[DOMAIN] = 1
        return ir.passes.PassResult(model, modified=True)


def budget_select_function() -> ir.Function:
    """The body in standard operators; its attributes are read by TensorRT's parser only."""
    scores, features, budget = (ir.Value(name=name) for name in ("scores", "features", "budget"))
    nodes: list[ir.Node] = []

    def op(op_type: str, *inputs: ir.Value, outputs: tuple[str, ...], **attributes: ir.Attr) -> ir.Value:
        values = [ir.Value(name=name) for name in outputs]
        nodes.append(ir.Node("", op_type, inputs, attributes.values(), outputs=values))
        return values[-1]

    def integer(name: str, number: int) -> ir.Attr:
        return ir.AttrInt64(name, number)

    lowest = op("Constant", outputs=("minus_infinity",), value=ir.AttrFloat32("value_float", float("-inf")))
    lowest = op("CastLike", lowest, scores, outputs=("lowest",))
    ranked = op("Where", op("IsNaN", scores, outputs=("unknown",)), lowest, scores, outputs=("ranked",))
    last_axis, ordered = integer("axis", -1), integer("sorted", 1)
    best = op(
        "TopK",
        ranked,
        budget,
        outputs=("best_scores", "best"),
        axis=last_axis,
        largest=integer("largest", 1),
        o=ordered,
    )
    # Smallest first: into raster order. Its first output, the values, are the indices of the tokens.
    op("TopK", best, budget, outputs=("indices", "order"), axis=last_axis, largest=integer("largest", 0), o=ordered)
    indices = nodes[-1].outputs[0]
    axes = op("Constant", outputs=("axes",), value=ir.AttrInt64s("value_ints", [-1]))
    rows = op("Unsqueeze", indices, axes, outputs=("rows",))
    kept = op("GatherND", features, rows, outputs=("kept",), batch_dims=integer("batch_dims", 1))
    graph = ir.Graph([scores, features, budget], [kept, indices], nodes=nodes, opset_imports={"": _FUNCTION_OPSET})
    declared = [ir.Attr(name, ir.AttributeType.UNDEFINED, None) for name in _PLUGIN_ATTRIBUTES]
    return ir.Function(DOMAIN, BUDGET_SELECT, graph=graph, attributes=declared)


_Match = tuple[ir.Value, ir.Value, ir.Value, ir.Value, ir.Node]


def _match(gather: ir.Node) -> _Match | None:
    """scores, features, budget, indices and the node that gathers the kept rows."""
    if gather.op_type != "Gather" or "axis" not in gather.attributes or gather.attributes["axis"].as_int() != 1:
        return None
    ascending = maker(_without_reshaping(gather.inputs[1]), "TopK")
    best = maker(None if ascending is None else ascending.inputs[0], "TopK")
    ranked = maker(None if best is None else best.inputs[0], "Where")
    unknown = maker(None if ranked is None else ranked.inputs[0], "IsNaN")
    if ascending is None or best is None or unknown is None:
        return None
    scores, features, budget = unknown.inputs[0], gather.inputs[0], best.inputs[1]
    if scores is None or features is None or budget is None:
        return None
    return scores, features, budget, ascending.outputs[0], gather


def _without_reshaping(value: ir.Value | None) -> ir.Value | None:
    """indices [1,K], of which the row is taken and flattened, before that."""
    while value is not None and (node := value.producer()) is not None and node.op_type in ("Reshape", "Gather"):
        value = node.inputs[0]
    return value


def _replace(
    graph: ir.Graph, scores: ir.Value, features: ir.Value, budget: ir.Value, indices: ir.Value, gather: ir.Node
) -> None:
    kept = gather.outputs[0]
    new_kept = result("kept_tokens", features.dtype or ir.DataType.FLOAT, kept.shape)
    new_indices = result("kept_rows", ir.DataType.INT64, indices.shape)
    node = ir.node(
        BUDGET_SELECT,
        [scores, features, budget],
        _PLUGIN_ATTRIBUTES,
        domain=DOMAIN,
        outputs=[new_kept, new_indices],
        name="budget_select",
    )
    graph.insert_before(gather, [node])
    for old, new in ((kept, new_kept), (indices, new_indices)):
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        if new.is_graph_output():
            new.name, old.name = old.name, f"{old.name}_before"
