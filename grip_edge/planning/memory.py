"""What must be held while a bundle answers, by part; and what an export needs of its machine.

On a CPU (ONNX Runtime) activations are fp32, and so are keys and values unless the formats say fp16; the tower's
attention never holds all its scores. 16-bit weights are widened when they are loaded; weights in blocks keep their
scales once more, as sums for integer products. The embedding table is mapped, and only rows that are read take memory.
On GPUs keys, values and activations are fp16 and weights are as in the bundle.
Not here: time (``forecast``).
"""

from __future__ import annotations

from dataclasses import dataclass

from grip_edge.manifest import WeightFormats
from grip_edge.planning.bundle_size import BundleBytes
from grip_edge.planning.formats import WIDENED, Matrix, cache_bytes, matrix_bytes, scale_bytes
from grip_edge.planning.layers import decoder_matrices, lm_head, projector_matrices, vision_matrices
from grip_edge.planning.shape import ModelShape

# Python, PyTorch, transformers and ONNX, before any weight is read.
_EXPORT_BASE_BYTES = 530_000_000
# The parity check holds both models of a checkpoint up to this size: 12 bytes per parameter. Above, pieces of 48 M.
_WHOLE_PARAMETERS = 100_000_000
_PIECE_ELEMENTS = 48_000_000
_CHECKED_TEXT_TOKENS = 64

# Interpreter, NumPy, ONNX Runtime, tokenizer and image library; CUDA context and engine overhead on a GPU.
_CPU_RUNTIME_BYTES = 75_000_000
_GPU_RUNTIME_BYTES = 700_000_000

# As many tiles of an image as the runtime encodes together.
_TILES_AT_ONCE = 4

_CPU_FLOAT_BYTES, _GPU_FLOAT_BYTES = 4, 2
# ONNX Runtime keeps activations in blocks that grow by doubling.
_CPU_ARENA = 2


@dataclass(frozen=True)
class DeviceMemory:
    """At one budget. ``activations`` is the largest that any stage needs at a time."""

    weights: int
    kv_cache: int
    activations: int
    runtime: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.activations + self.runtime


@dataclass(frozen=True)
class ExportNeeds:
    """``disk_bytes`` is for the bundle, ``checkpoint_bytes`` for the 16-bit checkpoint that it is made from."""

    ram_bytes: int
    disk_bytes: int
    checkpoint_bytes: int


def kv_cache_bytes(model: ModelShape, slots: int, element_bytes: int) -> int:
    return 2 * model.text.layers * model.text.cache_width * slots * element_bytes


def activation_bytes(
    model: ModelShape, prompt_tokens: int, slots: int, element_bytes: int, tower_scores: bool = True
) -> int:
    """The larger of attention (all heads' scores at once, the tower's only if ``tower_scores``) and MLP, in the tower
    and in the decoder.
    """
    vision, text = model.vision, model.text
    tiles = min(model.tiles, _TILES_AT_ONCE)
    tower_keys = vision.tokens if tower_scores else 0
    return element_bytes * max(
        _attention(prompt_tokens, slots, text.heads, text.width + text.query_width + 2 * text.cache_width),
        prompt_tokens * (2 * text.width + 3 * text.mlp_width),
        tiles * _attention(vision.tokens, tower_keys, vision.heads, 5 * vision.width),
        tiles * vision.tokens * (2 * vision.width + 2 * vision.mlp_width),
        text.vocab_size,
    )


def _attention(queries: int, keys: int, heads: int, width: int) -> int:
    return queries * (heads * keys + 2 * width)


def cpu_memory(
    model: ModelShape, formats: WeightFormats, bundle: BundleBytes, prompt_tokens: int, slots: int
) -> DeviceMemory:
    return DeviceMemory(
        weights=_resident_weights(model, formats, bundle),
        kv_cache=kv_cache_bytes(model, slots, cache_bytes(formats)),
        activations=_CPU_ARENA * activation_bytes(model, prompt_tokens, slots, _CPU_FLOAT_BYTES, tower_scores=False),
        runtime=_CPU_RUNTIME_BYTES,
    )


def gpu_memory(model: ModelShape, bundle: BundleBytes, prompt_tokens: int, slots: int) -> DeviceMemory:
    return DeviceMemory(
        weights=bundle.weights,
        kv_cache=kv_cache_bytes(model, slots, _GPU_FLOAT_BYTES),
        activations=activation_bytes(model, prompt_tokens, slots, _GPU_FLOAT_BYTES),
        runtime=_GPU_RUNTIME_BYTES,
    )


def _resident_weights(model: ModelShape, formats: WeightFormats, bundle: BundleBytes) -> int:
    def extra(matrices: tuple[Matrix, ...], scheme: str) -> int:
        if scheme in WIDENED:
            return sum(matrix_bytes(matrix, scheme, formats) for matrix in matrices)
        return sum(scale_bytes(matrix, scheme, formats) for matrix in matrices)

    return (
        bundle.weights
        - bundle.embedding
        + extra((*vision_matrices(model.vision), *projector_matrices(model)), formats.vision)
        + extra(decoder_matrices(model.text), formats.decoder)
        + extra((lm_head(model.text),), formats.lm_head)
    )


def export_needs(model: ModelShape, bundle: BundleBytes) -> ExportNeeds:
    """Memory does not grow with the model but with its largest tensor, once the model is too large to be held whole."""
    parameters = parameter_count(model)
    working = 12 * parameters if parameters <= _WHOLE_PARAMETERS else _streamed_bytes(model)
    return ExportNeeds(_EXPORT_BASE_BYTES + working, bundle.total, 2 * parameters)


def _streamed_bytes(model: ModelShape) -> int:
    """One tensor as it is stored and in fp32, and what both models hold of the unpruned prompt, of a few tiles."""
    tensor = 6 * max(lm_head(model.text).elements, _PIECE_ELEMENTS)
    prompt = min(model.visual_tokens, 3 * model.vision.patches) + _CHECKED_TEXT_TOKENS
    return tensor + 2 * activation_bytes(model, prompt, prompt, _CPU_FLOAT_BYTES)


def parameter_count(model: ModelShape) -> int:
    """Of the exported parts; the embedding counts beside the LM head also where they are one."""
    matrices = (
        *vision_matrices(model.vision),
        *projector_matrices(model),
        *decoder_matrices(model.text),
        lm_head(model.text),
        lm_head(model.text),
    )
    return sum(matrix.elements for matrix in matrices)
