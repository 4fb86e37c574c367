"""The number formats that a target can hold, out of those that were asked for.

TensorRT keeps int4 in blocks and int8 per output, both without zero points; int8 in blocks it widens when it builds,
and it looks up no rows in int8, so there the embedding stays fp16. On targets that compute in fp16, everything that is
not quantised is fp16, or everything is fp32.
"""

from __future__ import annotations

import dataclasses

from grip_edge.errors import UserError
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.targets.table import ONNX_RUNTIME, Target
from grip_edge.manifest import WeightFormats

_QUANTISED = ("int8", "int8-weight", "int4")


def target_formats(options: PrecisionOptions, target: Target, formats: WeightFormats | None = None) -> WeightFormats:
    """``formats`` as far as the checkpoint changed those of ``options``. UserError if the target cannot hold them."""
    formats = formats or options.formats
    if target.engine != ONNX_RUNTIME:
        if options.int4_symmetric is False:
            raise UserError(f"--int4-asymmetric needs zero points, which {target.name} refuses; leave it out.")
        embedding = "fp16" if options.embedding is None and formats.embedding in _QUANTISED else formats.embedding
        symmetric = None if formats.int4_symmetric is None else True
        formats = dataclasses.replace(formats, embedding=embedding, int4_symmetric=symmetric)
        if formats.embedding in _QUANTISED:
            raise UserError(f"--embedding-precision {formats.embedding} does not exist for {target.name}; use fp16.")
    for option, value in (("precision", options.precision), ("lm-head-precision", formats.lm_head)):
        if value not in target.precisions:
            listed = ", ".join(target.precisions)
            raise UserError(f"--{option} {value} does not exist for {target.name}; choose from: {listed}.")
    if target.half_compute and "fp32" in _parts(formats) and _parts(formats) != {"fp32"}:
        raise UserError(f"{target.name} computes in one float type: fp32 cannot stand beside other precisions.")
    return formats


def computes_in_half(formats: WeightFormats, target: Target) -> bool:
    return target.half_compute and formats.decoder != "fp32"


def without_halves(formats: WeightFormats) -> WeightFormats:
    """fp16 parts as fp32: where arithmetic is in fp16, storage follows from it."""

    def plain(scheme: str) -> str:
        return "fp32" if scheme == "fp16" else scheme

    return dataclasses.replace(
        formats,
        vision=plain(formats.vision),
        decoder=plain(formats.decoder),
        lm_head=plain(formats.lm_head),
        embedding=plain(formats.embedding),
    )


def _parts(formats: WeightFormats) -> set[str]:
    return {formats.vision, formats.decoder, formats.lm_head, formats.embedding}
