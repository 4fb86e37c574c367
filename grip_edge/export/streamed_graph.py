"""A graph run piece by piece in ONNX Runtime, within little memory: the same nodes and weights as in one session.

A piece is a run of consecutive nodes with a bounded number of weights. Its session reads these from the bundle's data
file, and is closed before the next is opened. Slow (every run loads every weight), and only for the parity check.
Not covered: fusions across the borders of pieces, which change speed, not results.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from grip_edge.export.graph_runner import session_options

Array = NDArray[Any]

_PIECE_ELEMENTS = 48_000_000

# 16-bit weights would be widened in several copies when they are loaded; so they are widened when they are read.
_NOT_OPTIMISED = ["ConstantFolding"]


@dataclass(frozen=True)
class PieceOptions:
    """The weights of a piece are used once, so laying them out for speed costs more than it gains (``plain``). But
    products with weights in blocks take a hundred times as long without it, and the copy is small (``in_blocks``).
    """

    plain: ort.SessionOptions
    in_blocks: ort.SessionOptions


@dataclass(frozen=True)
class Piece:
    nodes: tuple[onnx.NodeProto, ...]
    weights: tuple[onnx.TensorProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset_imports: tuple[onnx.OperatorSetIdProto, ...]
    functions: tuple[onnx.FunctionProto, ...]
    ir_version: int

    def open(self, values: Mapping[str, Array], options: PieceOptions) -> ort.InferenceSession:
        """``values`` tell types and ranks of the inputs, not their sizes."""
        inputs = [_value_info(name, values[name]) for name in self.inputs]
        outputs = [onnx.ValueInfoProto(name=name) for name in self.outputs]
        graph = helper.make_graph(self.nodes, "piece", inputs, outputs, self.weights)
        model = helper.make_model(
            graph, opset_imports=self.opset_imports, functions=self.functions, ir_version=self.ir_version
        )
        in_blocks = any(node.op_type in ("DequantizeLinear", "MatMulNBits") for node in self.nodes)
        return ort.InferenceSession(
            model.SerializeToString(),
            options.in_blocks if in_blocks else options.plain,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_NOT_OPTIMISED,
        )

    def run(self, session: ort.InferenceSession, values: Mapping[str, Array]) -> dict[str, Array]:
        results = session.run(list(self.outputs), {name: values[name] for name in self.inputs})
        return dict(zip(self.outputs, results, strict=True))


class StreamedSession:
    """Stands in for ``ort.InferenceSession``."""

    def __init__(self, path: Path, config: Mapping[str, str]) -> None:
        self._options = piece_options(path, config)
        self._model = onnx.load(path, load_external_data=False)
        self._outputs = [output.name for output in self._model.graph.output]

    def run(self, output_names: list[str] | None, feeds: dict[str, Array]) -> list[Array]:
        """Only what ``output_names`` needs is kept: caches that nobody asks for go as soon as they are read."""
        wanted = self._outputs if output_names is None else output_names
        values = dict(feeds)
        pieces = list(graph_pieces(self._model, wanted))
        for index, piece in enumerate(pieces):
            values |= piece.run(piece.open(values, self._options), values)
            still_needed = needed_after(pieces, index, wanted)
            values = {name: array for name, array in values.items() if name in still_needed}
        return [values[name] for name in wanted]


def piece_options(path: Path, config: Mapping[str, str]) -> PieceOptions:
    """For pieces of the graph at ``path``; ``config`` is what ONNX Runtime must be told about it."""
    folder = {"session.model_external_initializers_file_folder_path": str(path.parent)}
    options = PieceOptions(
        plain=session_options({**config, **folder, "session.disable_prepacking": "1"}),
        in_blocks=session_options({**config, **folder}),
    )
    for each in (options.plain, options.in_blocks):
        each.enable_cpu_mem_arena = False
    return options


def needed_after(pieces: Sequence[Piece], index: int, wanted: Iterable[str]) -> set[str]:
    """The values that are wanted in the end or read by a piece behind that one."""
    return {*wanted, *itertools.chain.from_iterable(later.inputs for later in pieces[index + 1 :])}


def graph_pieces(model: onnx.ModelProto, wanted: Iterable[str]) -> Iterator[Piece]:
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    groups = list(_groups(_needed(graph.node, wanted), weights))
    known = {value.name for value in graph.input}
    for index, nodes in enumerate(groups):
        read = dict.fromkeys(name for node in nodes for name in _read(node))
        made = {name for node in nodes for name in node.output}
        later = {name for group in groups[index + 1 :] for node in group for name in _read(node)}
        yield Piece(
            nodes=nodes,
            weights=tuple(weights[name] for name in read if name in weights),
            inputs=tuple(name for name in read if name in known and name not in made),
            outputs=tuple(sorted(made & {*later, *wanted})),
            opset_imports=tuple(model.opset_import),
            functions=tuple(model.functions),
            ir_version=model.ir_version,
        )
        known |= made


def _needed(nodes: Sequence[onnx.NodeProto], wanted: Iterable[str]) -> list[onnx.NodeProto]:
    """Without those whose results nobody reads."""
    read = set(wanted)
    needed = []
    for node in reversed(nodes):
        if not read.isdisjoint(node.output):
            needed.append(node)
            read.update(_read(node))
    return needed[::-1]


def _groups(
    nodes: Iterable[onnx.NodeProto], weights: dict[str, onnx.TensorProto]
) -> Iterator[tuple[onnx.NodeProto, ...]]:
    """Consecutive nodes, as many as their weights allow."""
    group: list[onnx.NodeProto] = []
    elements = 0
    for node in nodes:
        added = sum(math.prod(weights[name].dims) for name in node.input if name in weights)
        if group and elements + added > _PIECE_ELEMENTS:
            yield tuple(group)
            group, elements = [], 0
        group.append(node)
        elements += added
    if group:
        yield tuple(group)


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, the bodies of loops and branches included (and names that these define themselves)."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            yield from itertools.chain.from_iterable(_read(inner) for inner in body.node)


def _value_info(name: str, array: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype)), [None] * array.ndim
    )
