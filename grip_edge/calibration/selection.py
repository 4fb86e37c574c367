"""From scores to kept tokens, in PyTorch: the K best, ties to the lower index, NaN as -infinity, ascending.

``select.onnx`` does the same with standard ONNX ops; ``keep_best_numpy`` is the oracle that every backend must equal.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def keep_best(scores: Tensor, kept: int) -> Tensor:
    """scores [B,N] -> indices int64 [B,K], ascending. ``kept`` is 1..N."""
    order = torch.sort(scores.masked_fill(scores.isnan(), -torch.inf), dim=-1, descending=True, stable=True).indices
    return order[..., :kept].sort(dim=-1).values


def keep_best_numpy(scores: NDArray[np.floating], kept: int) -> NDArray[np.int64]:
    """The oracle: scores [N] -> indices [K], ascending; ties to the lower index."""
    ranked = np.where(np.isnan(scores), -np.inf, scores)
    return np.sort(np.argsort(-ranked, kind="stable")[:kept])


def gather_tokens(features: Tensor, indices: Tensor) -> Tensor:
    """features [B,N,D], indices [B,K] -> [B,K,D]."""
    return features.gather(1, indices[..., None].expand(-1, -1, features.shape[-1]))
