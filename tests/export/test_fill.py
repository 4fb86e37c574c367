"""Reference: the weights themselves, the memory contract (one weight more than makers), and an uninterrupted run."""

from __future__ import annotations

import hashlib
import os
import weakref
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from grip_edge.bundle import RESUME_NAME
from grip_edge.export import fill
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.fill import write_weights
from grip_edge.export.graphs import decoder_graph
from grip_edge.export.journal import Journal
from grip_edge.export.layout import Layout, lay_out, save_graph
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.tracing import make_model, trace
from grip_edge.export.weights import MakeTensor
from tests.export.comparing import FP32, write_graph


@pytest.fixture(scope="module")
def saved(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fill")
    write_graph(decoder_graph(checkpoint), checkpoint, folder)
    return folder / "decoder.onnx"


@pytest.fixture(scope="module")
def layout(checkpoint: Checkpoint) -> Layout:
    """An int4 decoder, whose weights come in parts."""
    formats = PrecisionOptions("int4").formats
    with quiet_libraries():
        return lay_out(make_model(decoder_graph(checkpoint), checkpoint, formats), "decoder.onnx")


def write(layout: Layout, folder: Path) -> list[str]:
    """Names of the weights that were made for it."""
    made: list[str] = []
    makers = [place.weight.make for place in layout.places]
    for place in layout.places:
        place.weight.make = _noting(place.name, place.weight.make, made)
    record = write_weights(layout, folder, Journal(folder), lambda place: None)
    for place, make in zip(layout.places, makers, strict=True):
        place.weight.make = make
    data = (folder / layout.data_file).read_bytes()
    assert (record.bytes, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    return made


def _noting(name: str, make: MakeTensor, made: list[str]) -> MakeTensor:
    def noting() -> Tensor:
        made.append(name)
        return make()

    return noting


def test_tracing_has_no_weights(checkpoint: Checkpoint) -> None:
    with quiet_libraries():
        model = trace(decoder_graph(checkpoint))
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        assert isinstance(value.const_value.raw, FakeTensor), value.name


def test_each_weight_is_read_once_and_two_live_at_a_time(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is being written and the one that is being made: as it is stored, widened, transposed."""
    read, loaded, most_alive = Checkpoint.read, [], 0
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()

    def watched(self: Checkpoint, name: str) -> Tensor:
        nonlocal most_alive
        tensor = read(self, name)
        if tensor.numel() > 512:
            loaded.append(name)
            alive.add(tensor)
            most_alive = max(most_alive, len(alive))
        return tensor

    monkeypatch.setattr(fill, "_MOST_MAKERS", 1)
    monkeypatch.setattr(Checkpoint, "read", watched)
    write_graph(decoder_graph(checkpoint), checkpoint, tmp_path)
    assert len(loaded) == len(set(loaded)) > 14
    assert most_alive <= 2


def test_many_makers_write_what_one_does(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    data = {}
    for makers in (1, 4):
        monkeypatch.setattr(fill, "_MOST_MAKERS", makers)
        folder = tmp_path / str(makers)
        folder.mkdir()
        write_weights(layout, folder, Journal(folder), lambda place: None)
        data[makers] = (folder / layout.data_file).read_bytes()
    assert data[1] == data[4]


def test_linear_weights_are_stored_as_matmul_reads_them(saved: Path, checkpoint: Checkpoint) -> None:
    graph = ir.load(saved).graph
    name = "layers.1.mlp.down_proj.weight"
    stored = graph.initializers[name].const_value
    assert stored is not None
    np.testing.assert_array_equal(stored.numpy(), checkpoint.load(f"language_model.{name}").numpy().T)
    products = [node for node in graph if node.op_type == "MatMul"]
    assert len(products) == 7 * checkpoint.text.layers + 1
    weights = [node.inputs[1] for node in products]
    assert all(weight is not None and weight.is_initializer() for weight in weights)


def test_weights_lie_beside_the_graph(saved: Path) -> None:
    tensors = [value.const_value for value in ir.load(saved).graph.initializers.values()]
    outside = [tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor)]
    assert all((tensor.offset or 0) % 64 == 0 for tensor in outside)
    padding = (saved.parent / "decoder.onnx.data").stat().st_size - sum(tensor.nbytes for tensor in outside)
    assert 0 <= padding < 64 * len(outside)
    assert saved.stat().st_size < 20_000


def test_the_graph_is_the_same_each_time(checkpoint: Checkpoint, saved: Path, tmp_path: Path) -> None:
    write_graph(decoder_graph(checkpoint), checkpoint, tmp_path)
    for name in ("decoder.onnx", "decoder.onnx.data"):
        assert (tmp_path / name).read_bytes() == (saved.parent / name).read_bytes(), name


@pytest.mark.parametrize("finished", [1, 7, 20])
def test_finished_weights_are_not_made_again(layout: Layout, tmp_path: Path, finished: int) -> None:
    """Cut after any weight, even between the parts of one, with half of the next in the file and in the journal."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
        save_graph(layout, folder)
    names = write(layout, whole)
    assert names == [place.name for place in layout.places]
    end = layout.places[finished - 1].end_byte
    (cut / layout.data_file).write_bytes((whole / layout.data_file).read_bytes()[: end + 100])
    lines = (whole / RESUME_NAME).read_text().splitlines(keepends=True)
    (cut / RESUME_NAME).write_text("".join(lines[:finished]) + lines[finished][:20])
    assert write(layout, cut) == names[finished:]
    assert (cut / layout.data_file).read_bytes() == (whole / layout.data_file).read_bytes()
    assert (cut / RESUME_NAME).read_text() == "".join(lines)


def test_what_a_crash_mangled_is_made_again(layout: Layout, tmp_path: Path) -> None:
    """The journal says that ten are finished; on disk the fifth lost its bytes."""
    names = write(layout, tmp_path)
    good = (tmp_path / layout.data_file).read_bytes()
    start = layout.places[4].start_byte
    (tmp_path / layout.data_file).write_bytes(good[:start] + bytes(16) + good[start + 16 :])
    assert write(layout, tmp_path) == names[4:]
    assert (tmp_path / layout.data_file).read_bytes() == good


def test_weights_of_another_recipe_are_made_again(layout: Layout, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The same export in another precision takes nothing over but what is the same."""
    write(layout, tmp_path)
    with quiet_libraries():
        other = lay_out(make_model(decoder_graph(checkpoint), checkpoint, FP32), "decoder.onnx")
    made = write(other, tmp_path)
    assert "layers.0.mlp.up_proj.weight" in made
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    write_graph(decoder_graph(checkpoint), checkpoint, fresh)
    assert (tmp_path / "decoder.onnx.data").read_bytes() == (fresh / "decoder.onnx.data").read_bytes()
