"""Reference: the numpy oracle, itself checked against a definition in plain Python."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from grip_edge.calibration.selection import gather_tokens, keep_best, keep_best_numpy

# Few distinct values, so that ties are the rule.
SCORES = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.5, 3.0]), min_size=1, max_size=40)


@given(scores=SCORES, data=st.data())
def test_oracle_keeps_the_best_with_ties_to_the_lower_index(scores: list[float], data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, len(scores)))
    expected = sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:kept])
    assert keep_best_numpy(np.array(scores), kept).tolist() == expected


@given(scores=SCORES, data=st.data())
def test_torch_equals_the_oracle(scores: list[float], data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, len(scores)))
    assert keep_best(torch.tensor([scores]), kept)[0].tolist() == keep_best_numpy(np.array(scores), kept).tolist()


def test_gather_takes_the_named_rows() -> None:
    features = torch.arange(24.0).view(2, 4, 3)
    found = gather_tokens(features, torch.tensor([[0, 3], [1, 2]]))
    assert torch.equal(found, torch.stack([features[0, [0, 3]], features[1, [1, 2]]]))
