"""Reference: the kernel's account of this process's mappings, and the file's own bytes."""

from __future__ import annotations

import ctypes
import mmap
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from grip_edge.mapped_files import Mapping, give_back_pages, loading, mappings_of, packing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mappings are read from Linux's /proc")

SIZE_BYTES = 64 * mmap.PAGESIZE


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "a bundle"
    folder.mkdir()
    path = folder / "decoder.onnx.data"
    path.write_bytes(np.random.default_rng(0).bytes(SIZE_BYTES))
    return path


@pytest.fixture(params=[mmap.ACCESS_READ, mmap.ACCESS_COPY])
def mapped(request: pytest.FixtureRequest, weights: Path) -> Iterator[mmap.mmap]:
    with weights.open("rb") as file, mmap.mmap(file.fileno(), 0, access=request.param) as found:
        yield found


def only(folder: Path) -> Mapping:
    (found,) = mappings_of(folder)
    return found


def test_pages_that_were_read_are_given_back_and_read_again(weights: Path, mapped: mmap.mmap) -> None:
    assert mapped[:] == weights.read_bytes()
    before = only(weights.parent)
    assert (before.path, before.resident_bytes, before.changed_bytes) == (str(weights.resolve()), SIZE_BYTES, 0)
    give_back_pages(weights.parent)
    assert only(weights.parent).resident_bytes == 0
    assert mapped[:] == weights.read_bytes()


def test_a_mapping_that_was_written_to_keeps_its_pages(weights: Path) -> None:
    with weights.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[:4] = b"mine"
        give_back_pages(weights.parent)
        assert mapped[:4] == b"mine"
        assert only(weights.parent).changed_bytes == mmap.PAGESIZE


def test_other_folders_are_left_alone(weights: Path, mapped: mmap.mmap) -> None:
    beside = weights.parent.parent / "a"  # its name begins as the folder's does
    beside.mkdir()
    assert len(mapped[:]) == SIZE_BYTES
    give_back_pages(beside)
    assert only(weights.parent).resident_bytes == SIZE_BYTES


def test_a_folder_behind_a_link_is_found(weights: Path, mapped: mmap.mmap) -> None:
    link = weights.parent.parent / "link"
    link.symlink_to(weights.parent)
    assert len(mapped[:]) == SIZE_BYTES
    give_back_pages(link)
    assert only(weights.parent).resident_bytes == 0


def test_while_weights_are_packed_pages_are_given_back_again_and_again(weights: Path, mapped: mmap.mmap) -> None:
    with packing(weights.parent):
        for _ in range(2):
            assert mapped[:] == weights.read_bytes()
            deadline = time.monotonic() + 30
            while only(weights.parent).resident_bytes:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert len(mapped[:]) == SIZE_BYTES
    assert only(weights.parent).resident_bytes == 0


def test_nothing_is_given_back_while_something_is_loaded(weights: Path, mapped: mmap.mmap) -> None:
    with ThreadPoolExecutor(1) as pool:
        with loading(weights.parent):
            assert len(mapped[:]) == SIZE_BYTES
            given_back = pool.submit(give_back_pages, weights.parent)
            with pytest.raises(TimeoutError):
                given_back.result(0.2)
            assert only(weights.parent).resident_bytes == SIZE_BYTES
        given_back.result(30)
    assert only(weights.parent).resident_bytes == 0


def test_memory_that_took_the_place_of_a_file_keeps_its_content(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of mappings was read before the file's ended."""
    with mmap.mmap(-1, SIZE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as other:
        other[:] = weights.read_bytes()
        start = ctypes.addressof(ctypes.c_char.from_buffer(other))
        stale = Mapping(start + mmap.PAGESIZE, start + SIZE_BYTES, str(weights), SIZE_BYTES - mmap.PAGESIZE, 0)
        monkeypatch.setattr("grip_edge.mapped_files.mappings_of", lambda folder: iter([stale]))
        give_back_pages(weights.parent)
        assert other[:] == weights.read_bytes()
