"""Two operations that PyTorch lacks and ONNX has: a cache written in place, and the K best with K known at run time.

Each has an eager form (for tests and reference), a shape rule (for torch.export) and its translation to standard ONNX.
``TRANSLATIONS`` also holds the greedy choices (``greedy``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from onnxscript.onnx_opset import opset24 as op
from torch import Tensor

from grip_edge.calibration.selection import keep_best as keep_best_eager
from grip_edge.export.networks.greedy import GREEDY_TRANSLATIONS


@torch.library.custom_op("grip_edge::write_cache", mutates_args=())
def write_cache(cache: Tensor, new: Tensor, write_start: Tensor) -> Tensor:
    """cache [1,G,C,d] with new [1,G,S,d] in the slots write_start .. write_start + S (int64 [1]) -> [1,G,C,d]."""
    slots = write_start + torch.arange(new.shape[2])
    return cache.index_copy(2, slots, new)


@write_cache.register_fake
def _(cache: Tensor, new: Tensor, write_start: Tensor) -> Tensor:
    return torch.empty_like(cache)


@torch.library.custom_op("grip_edge::keep_best", mutates_args=())
def keep_best(scores: Tensor, budget: Tensor) -> Tensor:
    """scores [1,N], budget int64 [1] -> indices int64 [1,K] of the K best: ascending, ties to the lower index."""
    return keep_best_eager(scores, int(budget)).contiguous()


@keep_best.register_fake
def _(scores: Tensor, budget: Tensor) -> Tensor:
    kept = torch.library.get_ctx().new_dynamic_size()
    return scores.new_empty((1, kept), dtype=torch.int64)


def _write_cache_onnx(cache: Any, new: Any, write_start: Any) -> Any:
    return op.TensorScatter(cache, new, write_start, axis=-2, mode="linear")


def _keep_best_onnx(scores: Any, budget: Any) -> Any:
    # TopK breaks ties in favour of the lower index; the second TopK, smallest first, puts the indices in raster order.
    lowest: Any = op.Constant(value_float=float("-inf"))
    ranked = op.Where(op.IsNaN(scores), op.CastLike(lowest, scores), scores)
    _, best = op.TopK(ranked, budget, axis=-1, largest=1, sorted=1)
    ascending, _ = op.TopK(best, budget, axis=-1, largest=0, sorted=1)
    return ascending


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.grip_edge.write_cache.default: _write_cache_onnx,
    torch.ops.grip_edge.keep_best.default: _keep_best_onnx,
    **GREEDY_TRANSLATIONS,
}
