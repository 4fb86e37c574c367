"""The deployment targets as data: what runs the graphs, which opset and operators, which forms and precisions.

    cpu, cuda         ONNX Runtime
    openvino          OpenVINO, CPUs; ONNX Runtime runs it as well
    rtx               TensorRT-RTX, desktop GPUs
    tensorrt-VERSION  TensorRT; JetPack releases and boards are other names for the version that they bring

Needs no torch and no onnx, so that a wrong name is answered at once. Not here: the passes (``lowering``), the check.
"""

from __future__ import annotations

from dataclasses import dataclass

from grip_edge.errors import UserError
from grip_edge.export.targets.operators import TENSORRT_10_0, TENSORRT_10_15, TENSORRT_11_0, TENSORRT_RTX_1_7

ONNX_RUNTIME, OPENVINO, TENSORRT, TENSORRT_RTX = "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"

# The others are ONNX Runtime's, so that the same tokens are kept.
OPENVINO_RUNS = ("vision.onnx", "decoder.onnx")

# TensorRT's TopK; more is an error on the device, not at build time.
_LARGEST_TOP_K = 3840

# Heads that are no multiple of it are refused by ONNX Runtime's own attention.
FUSED_HEAD_MULTIPLE = 8

# Others were refused by TensorRT-RTX 1.7 when it built (12, 512).
_HEAD_DIMS = range(16, 257, 8)


@dataclass(frozen=True)
class Target:
    """``operators`` None: all standard ones of the opset.

    ``attention_types`` and ``attention_head_dims`` are the float types and head widths (None: all) in which the
    operator Attention may stand in a graph.
    ``calibrated_precisions`` are those that need the ranges of values on questions: export does not take them,
    calibrate does.
    ``half_compute``: fp16 means arithmetic in fp16, not only storage. ``cache_in_place``: cache inputs and outputs
    may be one buffer. ``top_k_limit`` None: none. ``with_budget_select``: selection is a node of its own, which a
    plugin can take over (``budget_select``). ``cached_attention``: the decoder's is an operator of ONNX Runtime's own,
    ``tower_attention``: so is the vision tower's, ``block_products``: so are products with weights in blocks.
    ``cache_choice``: keys and values may be held in fewer bits than arithmetic has.
    """

    name: str
    engine: str
    opset: int
    operators: frozenset[str] | None
    attention_types: frozenset[str]
    attention_head_dims: range | None
    half_compute: bool
    cache_in_place: bool
    top_k_limit: int | None
    with_budget_select: bool
    cached_attention: bool
    precisions: tuple[str, ...]
    calibrated_precisions: tuple[str, ...] = ()
    tower_attention: bool = False
    block_products: bool = False
    cache_choice: bool = False

    def has(self, operator: str) -> bool:
        return self.operators is None or operator in self.operators

    @property
    def is_compiled(self) -> bool:
        """``grip-edge build`` makes engines of its graphs."""
        return self.engine in (TENSORRT, TENSORRT_RTX)

    @property
    def embeds_next(self) -> bool:
        """The decoder gives the embedding of the likeliest token as well (``next_embeds``)."""
        return self.engine in (ONNX_RUNTIME, OPENVINO) and self.cached_attention

    def has_fixed_scales(self, file_name: str) -> bool:
        """int8 is products whose inputs have one scale each, known beforehand; int8 weights have one per output."""
        return self.is_compiled or (self.engine == OPENVINO and file_name in OPENVINO_RUNS)


_FLOATS = frozenset({"FLOAT", "FLOAT16", "BFLOAT16"})

# int8 matrix products take inputs of a scale that is known beforehand.
_CALIBRATED = ("int8",)


def _onnx_runtime(name: str, half_compute: bool, own_operators: bool, precisions: tuple[str, ...]) -> Target:
    return Target(
        name, ONNX_RUNTIME, 24, None, _FLOATS, None, half_compute, True, None, False, own_operators, precisions,
        tower_attention=own_operators, block_products=own_operators, cache_choice=own_operators,
    )  # fmt: skip


def _openvino(name: str, precisions: tuple[str, ...]) -> Target:
    return Target(name, OPENVINO, 24, None, _FLOATS, None, False, True, None, False, True, precisions, _CALIBRATED)


def _tensorrt(name: str, engine: str, opset: int, operators: frozenset[str], precisions: tuple[str, ...]) -> Target:
    # No kernel of TensorRT's own computes attention in fp32.
    attention = frozenset({"FLOAT16", "BFLOAT16"}) if "Attention" in operators else frozenset[str]()
    in_place = "TensorScatter" in operators
    return Target(
        name, engine, opset, operators, attention, _HEAD_DIMS, True, in_place, _LARGEST_TOP_K, True, False,
        precisions, _CALIBRATED,
    )  # fmt: skip


_BLOCKS = ("fp32", "fp16", "int8-weight", "int4")
"""Weights in blocks need opset 21."""

TARGETS = {
    target.name: target
    for target in (
        _onnx_runtime("cpu", False, True, ("fp32", "fp16", "bf16", "int8", "int8-weight", "int4")),
        _onnx_runtime("cuda", True, False, _BLOCKS),
        _openvino("openvino", ("fp32", "fp16", "bf16", "int8-weight", "int4")),
        _tensorrt("rtx", TENSORRT_RTX, 24, TENSORRT_RTX_1_7, _BLOCKS),
        _tensorrt("tensorrt-11", TENSORRT, 24, TENSORRT_11_0, _BLOCKS),
        _tensorrt("tensorrt-10.16", TENSORRT, 24, TENSORRT_10_15, _BLOCKS),
        _tensorrt("tensorrt-10.13", TENSORRT, 20, TENSORRT_10_0, ("fp32", "fp16")),
        _tensorrt("tensorrt-10.3", TENSORRT, 20, TENSORRT_10_0, ("fp32", "fp16")),
    )
}
CPU = TARGETS["cpu"]

ALIASES = {
    "jetpack-6.2": "tensorrt-10.3",
    "jetpack-7.0": "tensorrt-10.13",
    "jetpack-7.1": "tensorrt-10.13",
    "jetpack-7.2": "tensorrt-10.16",
}


@dataclass(frozen=True)
class Board:
    """``target`` is that of the JetPack most boards of this kind run. ``compute_capability`` as in 87 for 8.7."""

    name: str
    target: str
    compute_capability: int


BOARDS = {
    board.name: board
    for board in (
        Board("orin-nano", "tensorrt-10.3", 87),
        Board("orin-nx", "tensorrt-10.3", 87),
        Board("agx-orin", "tensorrt-10.3", 87),
        Board("thor", "tensorrt-10.13", 110),
    )
}


def find_target(name: str) -> Target:
    """By its own name, a JetPack release or a board."""
    if name in BOARDS:
        name = BOARDS[name].target
    target = TARGETS.get(ALIASES.get(name, name))
    if target is None:
        raise UserError(f"--target {name} does not exist; choose from: {', '.join(target_names())}.")
    return target


def target_names() -> tuple[str, ...]:
    return (*TARGETS, *ALIASES, *BOARDS)
