"""Reference: the weights themselves, and the memory contract: one tensor at a time."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.fill import fill_and_save
from grip_edge.export.graphs import decoder_graph
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.tracing import trace


@pytest.fixture(scope="module")
def saved(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], int]:
    """The decoder with its weights filled in; which were loaded; how many big ones were alive at once."""
    graph = decoder_graph(checkpoint)
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    loaded, most_alive = [], 0

    def load(name: str) -> Tensor:
        nonlocal most_alive
        source = graph.source(name)
        tensor = checkpoint.load(source).clone() if isinstance(source, str) else source
        if tensor.numel() > 512:
            loaded.append(name)
            alive.add(tensor)
            most_alive = max(most_alive, len(alive))
        return tensor

    path = tmp_path_factory.mktemp("fill") / "decoder.onnx"
    with quiet_libraries():
        fill_and_save(trace(graph), load, path)
    return path, loaded, most_alive


def test_tracing_has_no_weights(checkpoint: Checkpoint) -> None:
    with quiet_libraries():
        model = trace(decoder_graph(checkpoint))
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        assert isinstance(value.const_value.raw, FakeTensor), value.name


def test_each_weight_is_read_once_and_alone(saved: tuple[Path, list[str], int]) -> None:
    _, loaded, most_alive = saved
    assert len(loaded) == len(set(loaded)) > 14
    # The rotary tables live in the graph's description; of checkpoint tensors there is one.
    assert most_alive <= 1 + 2


def test_linear_weights_are_stored_as_matmul_reads_them(
    saved: tuple[Path, list[str], int], checkpoint: Checkpoint
) -> None:
    graph = ir.load(saved[0]).graph
    name = "layers.1.mlp.down_proj.weight"
    stored = graph.initializers[name].const_value
    assert stored is not None
    np.testing.assert_array_equal(stored.numpy(), checkpoint.load(f"language_model.{name}").numpy().T)
    products = [node for node in graph if node.op_type == "MatMul"]
    assert len(products) == 7 * checkpoint.text.layers
    weights = [node.inputs[1] for node in products]
    assert all(weight is not None and weight.is_initializer() for weight in weights)


def test_weights_lie_beside_the_graph(saved: tuple[Path, list[str], int]) -> None:
    path = saved[0]
    assert sorted(file.name for file in path.parent.iterdir()) == ["decoder.onnx", "decoder.onnx.data"]
    tensors = [value.const_value for value in ir.load(path).graph.initializers.values()]
    outside = [tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor)]
    assert sum(tensor.nbytes for tensor in outside) == (path.parent / "decoder.onnx.data").stat().st_size
    assert path.stat().st_size < 20_000
