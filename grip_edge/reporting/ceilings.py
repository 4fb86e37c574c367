"""The least time of each stage, from the bytes and FLOPs that it cannot do without and this machine's measured rates.

    vision, prefill   the larger of FLOPs over the rate of products and weight bytes over the rate of reading them,
                      and attention
    decode            per token: weight bytes and the cache's over the rate of reading

Rates are those of ``planning.cpu_speed``: large products with the same kernels, and reading more than the processor's
caches hold. A model that fits into these caches can be faster than that: a ratio above 1. Weights are counted from the
bundle's files. Not here: preprocessing and selection, whose work is small and of other kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from grip_edge.manifest import Manifest, WeightFormats
from grip_edge.planning.formats import WIDENED, Matrix, cache_bytes, matrix_bytes
from grip_edge.planning.speed import Speed
from grip_edge.report import BudgetRow, Ceiling


@dataclass(frozen=True)
class Work:
    """Of one run of a stage. ``products`` are FLOPs with weights, ``weight_bytes`` what is read of them."""

    scheme: str
    products: float
    attention: float
    weight_bytes: float
    cache_bytes: float = 0.0

    def least_ms(self, speed: Speed) -> float:
        reading = self.weight_bytes / speed.rows[self.scheme]
        products = self.products / speed.products[self.scheme]
        return 1000.0 * (max(products, reading) + self.attention / speed.attention + self.cache_bytes / speed.memory)


def schemes(formats: WeightFormats) -> tuple[str, ...]:
    return tuple(dict.fromkeys((formats.vision, formats.decoder)))


def row_ceilings(
    row: BudgetRow, manifest: Manifest, formats: WeightFormats, text_tokens: int, new_tokens: int, speed: Speed
) -> tuple[Ceiling, ...]:
    """``text_tokens`` are those around the image."""
    return tuple(_ceilings(row, manifest, formats, text_tokens, new_tokens, speed))


def _ceilings(
    row: BudgetRow, manifest: Manifest, formats: WeightFormats, text_tokens: int, new_tokens: int, speed: Speed
) -> Iterator[Ceiling]:
    sequence = text_tokens + row.kept_tokens
    work = {
        "vision": (vision_work(manifest, formats), "vision"),
        "prefill": (decoder_work(manifest, formats, sequence, sequence), "prefill"),
        "decode": (decoder_work(manifest, formats, 1, sequence + new_tokens // 2), "tpot"),
    }
    for stage, (one, measured) in work.items():
        least, took = one.least_ms(speed), row.times_ms[measured].p50
        flops, moved = one.products + one.attention, one.weight_bytes + one.cache_bytes
        yield Ceiling(stage, flops, moved, least, took, least / took)


def vision_work(manifest: Manifest, formats: WeightFormats) -> Work:
    """Of one view: the tower up to its features."""
    vision, tokens = manifest.model.vision, manifest.model.vision.visual_tokens
    stored = _file_bytes(manifest, "vision.onnx")
    elements = stored / _bytes_per_element(formats.vision, formats)
    attention = 4.0 * vision.layers * tokens**2 * vision.width
    return Work(formats.vision, 2.0 * tokens * elements, attention, _read_bytes(stored, formats.vision))


def decoder_work(manifest: Manifest, formats: WeightFormats, tokens: int, slots: int) -> Work:
    """``tokens`` at once over a cache of ``slots``; logits of the last one only."""
    text = manifest.model.text
    stored = _file_bytes(manifest, "decoder.onnx")
    head = Matrix(text.width, text.vocab_size)
    head_bytes = matrix_bytes(head, formats.lm_head, formats)
    elements = max(stored - head_bytes, 0) / _bytes_per_element(formats.decoder, formats)
    attention = 4.0 * text.layers * tokens * slots * text.heads * text.head_dim
    return Work(
        scheme=formats.decoder,
        products=2.0 * tokens * elements + 2.0 * head.elements,
        attention=attention,
        weight_bytes=_read_bytes(stored, formats.decoder),
        cache_bytes=2.0 * text.layers * slots * text.kv_heads * text.head_dim * cache_bytes(formats),
    )


def _file_bytes(manifest: Manifest, graph: str) -> int:
    """Of the graph's weights: its data file where there is one."""
    sizes = {record.path: record.bytes for record in manifest.files if record.path.startswith(graph)}
    return sum(size for path, size in sizes.items() if path != graph) or sizes[graph]


def _bytes_per_element(scheme: str, formats: WeightFormats) -> float:
    block = Matrix(4096, 4096)
    return matrix_bytes(block, scheme, formats) / block.elements


def _read_bytes(stored: int, scheme: str) -> float:
    """ONNX Runtime's CPU widens 16-bit weights to fp32 when it loads them."""
    return 2.0 * stored if scheme in WIDENED else float(stored)
