"""Position ids of a prompt whose image was pruned.

``reindexed``: consecutive, as if the dropped tokens had never been there. ``original``: kept visual tokens keep the
place that they have in the unpruned prompt, and the text after the image continues after all N of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RULES = ("reindexed", "original")


def prompt_positions(
    before_count: int, kept_indices: NDArray[np.int64], after_count: int, visual_tokens: int, rule: str
) -> NDArray[np.int64]:
    """kept_indices [K] -> position ids [1,S], S = before + K + after. The next token continues from the last one."""
    if rule == "reindexed":
        return np.arange(before_count + len(kept_indices) + after_count, dtype=np.int64)[None]
    after_start = before_count + visual_tokens
    parts = (np.arange(before_count), before_count + kept_indices, np.arange(after_start, after_start + after_count))
    return np.concatenate(parts).astype(np.int64)[None]
