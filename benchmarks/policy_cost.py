"""What each exported selector costs, in milliseconds and as a ratio to the GRIP scorer's.

    python benchmarks/policy_cost.py --shape llava-tiny --shape llava-1.5-7b --repeats 20

Random weights and features of a model's shape, K = N / 4 kept, one thread. All graphs take turns in one run, so that a
drift of the machine hits all alike; medians. "select.onnx" holds a projector of the model's shape: over the K kept
tokens, or over all N for policies that compare projected tokens. "choosing" is the same graph with the projector taken
out, on tokens that are projected already for those policies, and on the vision tower's features for the others.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxscript.optimizer import optimize
from torch import Tensor, nn

from grip_edge.calibration.policies import POLICIES
from grip_edge.calibration.scorer import GripScorer, ScorerConfig
from grip_edge.export.graphs import Graph
from grip_edge.export.networks.projector import Projector
from grip_edge.export.networks.select import Select, SelectByPolicy
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.tracing import trace
from grip_edge.policy_catalog import CLS_ATTENTION, POLICY_SPECS, PROJECTED

BASE = "grip"
NAMES = (BASE, *(name for name, spec in POLICY_SPECS.items() if spec.exportable))
QUESTION_TOKENS = 12
WARMUPS = 3


@dataclass(frozen=True)
class Shape:
    """``vision`` and ``text`` are the widths before and behind the projector."""

    side: int
    vision: int
    text: int

    @property
    def tokens(self) -> int:
        return self.side**2


SHAPES = {"llava-tiny": Shape(12, 192, 192), "llava-1.5-7b": Shape(24, 1024, 4096)}


class Nothing(nn.Module):
    """In the projector's place."""

    def forward(self, features: Tensor) -> Tensor:
        return features


def select_graph(name: str, shape: Shape, with_projector: bool) -> Graph:
    spec, grid = POLICY_SPECS[name], (shape.side, shape.side)
    width = shape.text if PROJECTED in spec.reads and not with_projector else shape.vision
    reads_attention = CLS_ATTENTION in spec.reads

    def make() -> tuple[nn.Module, tuple[Any, ...]]:
        projector = Projector(shape.vision, shape.text, "gelu", True) if with_projector else Nothing()
        if name == BASE:
            scorer = GripScorer(ScorerConfig(shape.vision, shape.text, grid))
            network: nn.Module = Select(scorer, projector)
        else:
            network = SelectByPolicy(POLICIES[name](), spec, grid, projector)
        features, question = torch.zeros(1, shape.tokens, width), torch.zeros(1, QUESTION_TOKENS, shape.text)
        inputs = (features, question, torch.ones(1, dtype=torch.int64))
        return network, (*inputs, torch.zeros(1, shape.tokens)) if reads_attention else inputs

    attention = ("cls_attention",) if reads_attention else ()
    return Graph(
        file_name="select.onnx",
        make=make,
        source=str,
        input_names=("features", "question_embeds", "budget", *attention),
        output_names=("kept_embeds", "kept_indices", "scores"),
        dynamic_shapes=({}, {1: "T"}, {}, *({} for _ in attention)),
    )


def session(graph: Graph, draw: np.random.Generator) -> ort.InferenceSession:
    """The graph with random weights, on one thread."""
    with quiet_libraries():
        model = trace(graph)
    for name, value in model.graph.initializers.items():
        if name.startswith(("scorer.", "projector.")) and value.shape is not None:
            weights = 0.02 * draw.standard_normal(value.shape.numpy(), np.float32)
            value.const_value = ir.tensor(weights, name=name)
    optimize(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])


def feeds(select: ort.InferenceSession, kept: int, draw: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Random inputs around a common mean, as real features are."""
    values: dict[str, NDArray[Any]] = {"budget": np.array([kept])}
    for value in select.get_inputs():
        if value.name != "budget":
            size = [axis if isinstance(axis, int) else QUESTION_TOKENS for axis in value.shape]
            values[value.name] = np.abs(draw.standard_normal(size, np.float32) + 0.5)
    return values


def measure(shape: Shape, repeats: int, with_projector: bool) -> dict[str, float]:
    """Median milliseconds by selector."""
    draw = np.random.default_rng(0)
    sessions = {name: session(select_graph(name, shape, with_projector), draw) for name in NAMES}
    inputs = {name: feeds(select, shape.tokens // 4, draw) for name, select in sessions.items()}
    times_ms: dict[str, list[float]] = {name: [] for name in NAMES}
    for turn in range(-WARMUPS, repeats):
        for name, select in sessions.items():
            start = time.perf_counter()
            select.run(None, inputs[name])
            if turn >= 0:
                times_ms[name].append(1000.0 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in times_ms.items()}


@click.command()
@click.option("--shape", "shapes", multiple=True, type=click.Choice(tuple(SHAPES)), default=tuple(SHAPES))
@click.option("--repeats", default=20, show_default=True)
def main(shapes: tuple[str, ...], repeats: int) -> None:
    """Measure every exportable selector."""
    for shape_name in shapes:
        shape = SHAPES[shape_name]
        whole, choosing = (measure(shape, repeats, with_projector) for with_projector in (True, False))
        print(f"\n{shape_name}: N = {shape.tokens}, K = {shape.tokens // 4}, widths {shape.vision} and {shape.text}")
        print("| selector | select.onnx ms | ratio to GRIP | choosing ms | ratio to GRIP |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for name in NAMES:
            ratios = (times[name] / times[BASE] for times in (whole, choosing))
            cells = (f"{ms:.3f} | {ratio:.2f}" for ms, ratio in zip((whole[name], choosing[name]), ratios, strict=True))
            print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
