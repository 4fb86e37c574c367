"""Where each weight of a graph will lie in its data file, before any of them is made.

Small weights stay inside the ``.onnx`` file, the others follow one another in ``<name>.data``. Places depend on the
graph alone, so the size of a bundle is known before it is written, and an interrupted export finds its place again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from grip_edge.export.weights import Weight

# Weights below this size are cheaper inside the graph's own file.
INLINE_BYTES = 256
# ONNX Runtime maps the file: vector loads want numbers that start on a cache line.
_ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class Place:
    """``start_byte`` counts in the data file; before it lie zeros up to the end of the previous weight."""

    name: str
    weight: Weight
    start_byte: int

    @property
    def end_byte(self) -> int:
        return self.start_byte + self.weight.nbytes


@dataclass(frozen=True)
class Layout:
    graph_file: str
    data_file: str
    model: ir.Model = field(repr=False)  # thousands of lines
    places: tuple[Place, ...]

    @property
    def data_bytes(self) -> int:
        return self.places[-1].end_byte if self.places else 0


def lay_out(model: ir.Model, graph_file: str) -> Layout:
    """Weights of ``model`` become references into the data file, which does not exist yet."""
    data_file = f"{graph_file}.data"
    places: list[Place] = []
    end = 0
    for value in _in_order_of_use(model):
        weight = value.const_value
        if not isinstance(weight, Weight) or weight.nbytes < INLINE_BYTES:
            continue
        start = -(-end // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        place = Place(str(value.name), weight, start)
        value.const_value = ir.ExternalTensor(
            data_file, start, weight.nbytes, weight.dtype, shape=weight.shape, name=place.name
        )
        places.append(place)
        end = place.end_byte
    return Layout(graph_file, data_file, model, tuple(places))


def _in_order_of_use(model: ir.Model) -> dict[ir.Value, None]:
    """What is made together (codes and scales) and read together lies together."""
    used = (value for node in model.graph for value in node.inputs if value is not None and value.is_initializer())
    return dict.fromkeys([*used, *model.graph.initializers.values()])


def save_graph(layout: Layout, folder: Path) -> None:
    """Writes the ``.onnx`` file."""
    ir.save(layout.model, folder / layout.graph_file)
