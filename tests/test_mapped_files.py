"""Reference: the kernel's account of this process's mappings, and the file's own bytes."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from grip_edge.mapped_files import Mapping, give_back_pages, mappings_of

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
