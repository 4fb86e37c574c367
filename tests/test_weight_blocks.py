"""Reference: all block sizes that leave no rest, tried one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from grip_edge.weight_blocks import fitting_block


@given(st.integers(1, 5000), st.sampled_from([16, 32, 64, 128, 256]))
def test_the_largest_block_that_leaves_no_rest(size: int, block: int) -> None:
    without_rest = [smaller for smaller in range(16, block + 1) if size % smaller == 0 and block % smaller == 0]
    assert fitting_block(size, block) == max(without_rest, default=block)
