"""Which seeds belong to which split. The ranges do not meet, so no test scene was ever trained on."""

from __future__ import annotations

from grip_edge.errors import UserError

SPLITS: dict[str, range] = {
    "train": range(10_000_000),
    "validation": range(10_000_000, 11_000_000),
    "test": range(20_000_000, 21_000_000),
}


def scene_seed(split: str, index: int) -> int:
    """Seed of the ``index``-th scene of a split."""
    if split not in SPLITS:
        raise UserError(f"Unknown split '{split}'; expected one of {', '.join(SPLITS)}.")
    seeds = SPLITS[split]
    if not 0 <= index < len(seeds):
        raise UserError(f"Split '{split}' has scenes 0 to {len(seeds) - 1}; got index {index}.")
    return seeds[index]
