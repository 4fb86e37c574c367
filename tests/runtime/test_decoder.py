"""The cached decoder: in place, and equal however the tokens are cut into runs.

References: addresses and contents of the cache buffers; the same prompt in one run.
"""

from __future__ import annotations

import numpy as np
import pytest

from grip_edge.runtime import Pipeline
from grip_edge.runtime.decoder import CachedDecoder

CAPACITY = 24


def decoder(pipeline: Pipeline, capacity: int = CAPACITY) -> CachedDecoder:
    return CachedDecoder(pipeline.graphs.decoder, pipeline.manifest.model.text, capacity)


def prompt(pipeline: Pipeline, count: int) -> tuple[np.ndarray, np.ndarray]:
    embeds = pipeline.graphs.embed(tuple(range(5, 5 + count)))
    return embeds, np.arange(count, dtype=np.int64)[None]


def test_the_cache_is_written_in_place(pipeline: Pipeline) -> None:
    """Same address before and after, new slots filled, old slots untouched, later slots still zero."""
    run = decoder(pipeline)
    names = list(run.cache.addresses())
    assert len(names) == 2 * pipeline.manifest.model.text.layers
    addresses = run.cache.addresses()
    assert all(addresses[name] == run.cache.array(name).ctypes.data for name in names)
    embeds, positions = prompt(pipeline, 10)
    run.append(embeds[:, :9], positions[:, :9])
    before = {name: run.cache.array(name).copy() for name in names}
    run.append(embeds[:, 9:], positions[:, 9:])
    assert run.cache.addresses() == addresses
    for name in names:
        after = run.cache.array(name)
        assert np.array_equal(after[:, :, :9], before[name][:, :, :9])
        assert np.abs(before[name][:, :, :9]).min(axis=-1).max() > 0
        assert not before[name][:, :, 9:].any()
        assert after[:, :, 9].any()
        assert not after[:, :, 10:].any()


def test_no_output_is_a_copy_of_the_cache(pipeline: Pipeline) -> None:
    """Each ``new_cache`` output of the run is the very buffer that went in."""
    run = decoder(pipeline)
    run.append(*prompt(pipeline, 4))
    addresses = list(run.cache.addresses().values())
    outputs = run.new_binding().get_outputs()[: len(addresses)]  # the others come behind
    assert [value.data_ptr() for value in outputs] == addresses


@pytest.mark.parametrize("cut", [1, 5, 9])
def test_two_runs_equal_one(pipeline: Pipeline, cut: int) -> None:
    embeds, positions = prompt(pipeline, 10)
    expected = decoder(pipeline).append(embeds, positions)
    run = decoder(pipeline)
    run.append(embeds[:, :cut], positions[:, :cut])
    found = run.append(embeds[:, cut:], positions[:, cut:])
    difference = np.abs(found - expected)
    assert difference.max() < 1e-4, f"max {difference.max()}, mean {difference.mean()}"


def test_capacity_does_not_change_the_answer(pipeline: Pipeline) -> None:
    embeds, positions = prompt(pipeline, 10)
    tight, roomy = (decoder(pipeline, capacity).append(embeds, positions) for capacity in (10, 200))
    difference = np.abs(tight - roomy)
    assert difference.max() < 1e-4, f"max {difference.max()}, mean {difference.mean()}"


def test_a_full_cache_is_never_written(pipeline: Pipeline) -> None:
    run = decoder(pipeline, capacity=3)
    run.append(*prompt(pipeline, 3))
    with pytest.raises(ValueError, match="3 \\+ 1 tokens exceed the cache of 3"):
        run.append(*prompt(pipeline, 1))


def test_the_cache_is_as_big_as_the_request(pipeline: Pipeline) -> None:
    text = pipeline.manifest.model.text
    assert decoder(pipeline).cache.bytes == 2 * text.layers * text.kv_heads * CAPACITY * text.head_dim * 4


def test_a_restarted_cache_gives_the_same_answer(pipeline: Pipeline) -> None:
    """What another request left in the slots is not read."""
    embeds, positions = prompt(pipeline, 10)
    expected = decoder(pipeline).append(embeds[:, :4], positions[:, :4])
    run = decoder(pipeline)
    run.append(embeds[:, ::-1], positions)
    run.restart()
    difference = np.abs(run.append(embeds[:, :4], positions[:, :4]) - expected)
    assert difference.max() < 1e-4, f"max {difference.max()}, mean {difference.mean()}"
