"""The decoder's graph with the cache inside: what OpenVINO's fused attention wants, made from what a bundle has.

    GroupQueryAttention(query, key, value, cache_key, cache_value, ...)
    ─▶ past = ReadValue;  all = Concat(past, new);  Assign(all);  ScaledDotProductAttention(query, all, all, mask)

The caches grow by what is appended, so that the graph's inputs and outputs of that name disappear. All layers share one
mask. In this form OpenVINO 2026.4 takes cache and attention for one operator, in bf16. A past that is not gathered is
no part of it, and a mask of booleans takes three times as long (docs/log.md).

    needs    a decoder as ``export.targets.cached_attention`` leaves it, with ``half_cache`` after it or without: the
             type of a cache inside is OpenVINO's own matter, so attention is fp32 here
    leaves   inputs embeds [1,S,D], position_ids [1,S], write_start [1], rows [1] (always 0); outputs logits [1,V], and
             where the decoder has them next_token [1,1] and next_embeds [1,1,D]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset15 as op
from openvino.op.util import Variable, VariableInfo

from grip_edge.engines import GREEDY_TOKEN, NEXT_EMBEDS

ROWS = "rows"
_ATTENTION = "GroupQueryAttention"
_CACHE = "cache_"
_RESULTS = {"logits", GREEDY_TOKEN, NEXT_EMBEDS}
_HIDDEN = -1e9
_LENGTH_AXIS = 2


def with_own_cache(model: ov.Model) -> ov.Model:
    """``model`` is used up. ValueError if its attention has another form."""
    attentions = [node for node in model.get_ordered_ops() if node.get_type_name() == _ATTENTION]
    inputs = {node.get_friendly_name(): node for node in model.get_parameters()}
    layers = sum(name.startswith(_CACHE) for name in inputs) // 2
    if not attentions or len(attentions) != layers:
        raise ValueError(f"{len(attentions)} of {layers} layers have {_ATTENTION}")
    rows = op.parameter([1], np.int32, name=ROWS)
    rows.output(0).set_names({ROWS})
    sinks: list[Any] = []
    mask: Any = None
    for layer, node in enumerate(attentions):
        query, new_key, new_value = (_in_fp32(node.input_value(index)) for index in range(3))
        heads = node.get_attributes()["num_heads"]
        seen = []
        for kind, new in (("key", new_key), ("value", new_value)):
            grown, assign = _appended(new, rows, f"{kind}_{layer}")
            seen.append(_for_all_heads(grown, heads))
            sinks.append(assign)
        if mask is None:
            mask = _mask(query, grown, inputs["write_start"])
        attended = op.scaled_dot_product_attention(query, *seen, mask, *_scale(node), causal=False)
        heads_last = op.transpose(attended, op.constant(np.array([0, 2, 1, 3])))
        merged = op.reshape(heads_last, op.constant(np.array([0, 0, -1])), special_zero=True)
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(merged.output(0))
    results = [node for node in model.get_results() if node.input_value(0).get_names() & _RESULTS]
    kept = [node for name, node in inputs.items() if not name.startswith(_CACHE)]
    return ov.Model(results, sinks, [*kept, rows], "decoder")


def _in_fp32(value: Any) -> Any:
    return value if value.get_element_type() == ov.Type.f32 else op.convert(value, ov.Type.f32).output(0)


def _appended(new: Any, rows: Any, name: str) -> tuple[Any, Any]:
    """new [1,G,S,d] behind all that came before, and the node that remembers it."""
    _, kv_heads, _, head_dim = new.get_partial_shape()
    info = VariableInfo()
    info.data_shape = ov.PartialShape([1, kv_heads, -1, head_dim])
    info.data_type = new.get_element_type()
    info.variable_id = name
    variable = Variable(info)
    nothing = np.zeros((1, kv_heads.get_length(), 0, head_dim.get_length()), np.float32)
    start = op.convert(op.constant(nothing), info.data_type)
    # Which row continues which: always the only one, but the gather is part of the pattern.
    past = op.gather(op.read_value(start, variable), rows, op.constant(0))
    grown = op.concat([past, new], _LENGTH_AXIS)
    return grown, op.assign(grown, variable)


def _for_all_heads(cache: Any, heads: int) -> Any:
    """[1,G,C,d] -> [1,heads,C,d]: each key serves a group of queries."""
    kv_heads, head_dim = (cache.get_output_partial_shape(0)[axis].get_length() for axis in (1, 3))
    if kv_heads == heads:
        return cache
    apart = op.unsqueeze(cache, op.constant(np.array([2])))
    repeated = op.broadcast(
        apart, op.constant(np.array([1, 1, heads // kv_heads, 1, 1])), broadcast_spec="BIDIRECTIONAL"
    )
    return op.reshape(repeated, op.constant(np.array([0, heads, -1, head_dim])), special_zero=True)


def _mask(query: Any, keys: Any, write_start: Any) -> Any:
    """float [1,1,S,P+S]: a query in slot p sees the slots up to p."""
    zero, one = op.constant(np.int64(0)), op.constant(np.int64(1))

    def length(value: Any) -> Any:
        return op.gather(op.shape_of(value, "i64"), op.constant(_LENGTH_AXIS), op.constant(0))

    slots = op.range(zero, length(keys), one, "i64")
    own = op.add(op.range(zero, length(query), one, "i64"), write_start)
    sees = op.less_equal(slots, op.unsqueeze(own, op.constant(np.array([1]))))
    levels = op.select(sees, op.constant(np.float32(0.0)), op.constant(np.float32(_HIDDEN)))
    return op.unsqueeze(levels, op.constant(np.array([0, 1])))


def _scale(node: Any) -> tuple[Any, ...]:
    """ONNX Runtime's 0 is the default, one over the root of the head's width."""
    scale = node.get_attributes()["scale"]
    return (op.constant(np.float32(scale)),) if scale else ()
