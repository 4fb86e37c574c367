"""The likeliest token's embedding as an output of the decoder, so that a greedy step is one run of one graph.

next_token ─ the nodes of embed.onnx ─▶ next_embeds [1,1,D]

The table is not written twice: the decoder's graph refers to embed.onnx's data file, of which runtimes map what they
read. For the runtimes on CPUs, where a run costs as much as looking up a row.
"""

from __future__ import annotations

import onnx_ir as ir

from grip_edge.engines import GREEDY_TOKEN, NEXT_EMBEDS

_PREFIX = "next_"


def embed_next_token(decoder: ir.Model, embed: ir.Model) -> None:
    """``decoder`` gives next_token; ``embed`` has weights that lie in a file already (``layout.lay_out``)."""
    (token,) = (output for output in decoder.graph.outputs if output.name == GREEDY_TOKEN)
    known: dict[ir.Value, ir.Value] = {embed.graph.inputs[0]: token}
    for value in embed.graph.initializers.values():
        known[value] = _copied(value)
        known[value].const_value = value.const_value
        decoder.graph.register_initializer(known[value])
    for node in embed.graph:
        outputs = [_copied(output) for output in node.outputs]
        for old, new in zip(node.outputs, outputs, strict=True):
            new.shape = None  # of T tokens, here one
            known[old] = new
        inputs = [None if value is None else known[value] for value in node.inputs]
        decoder.graph.append(
            ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()), outputs=outputs)
        )
    embeds = known[embed.graph.outputs[0]]
    embeds.name, embeds.shape = NEXT_EMBEDS, ir.Shape([1, 1, embed.graph.outputs[0].shape[2]])  # type: ignore[index]
    decoder.graph.outputs.append(embeds)


def _copied(value: ir.Value) -> ir.Value:
    return ir.Value(name=f"{_PREFIX}{value.name}", type=value.type, shape=value.shape)
