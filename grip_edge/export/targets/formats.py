"""The number formats that a target can hold, out of those that were asked for.

TensorRT keeps int4 in blocks and int8 per output, both without zero points; int8 in blocks it widens when it builds,
and it looks up no rows in int8, so there the embedding stays fp16. Its int8 products want the ranges of their inputs,
which calibrate measures. On targets that compute in fp16, everything that is not quantised is fp16, or everything is
fp32. Keys and values can be had in fp16 where ONNX Runtime's own attention holds them (``half_cache``), on cpu.
"""

from __future__ import annotations

import dataclasses

from grip_edge.errors import UserError
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.targets.table import CPU, FUSED_HEAD_MULTIPLE, Target
from grip_edge.manifest import WeightFormats

_QUANTISED = ("int8", "int8-weight", "int4")


def target_formats(
    options: PrecisionOptions, target: Target, formats: WeightFormats | None = None, calibrated: bool = False
) -> WeightFormats:
    """``formats`` as far as the checkpoint changed those of ``options``; ``calibrated``: ranges of values are known.

    UserError if the target cannot hold them.
    """
    formats = formats or options.formats
    allowed = (*target.precisions, *(target.calibrated_precisions if calibrated else ()))
    if target.is_compiled:
        if options.int4_symmetric is False:
            raise UserError(f"--int4-asymmetric needs zero points, which {target.name} refuses; leave it out.")
        embedding = "fp16" if options.embedding is None and formats.embedding in _QUANTISED else formats.embedding
        symmetric = None if formats.int4_symmetric is None else True
        lm_head = "fp16" if options.lm_head is None and formats.lm_head not in allowed else formats.lm_head
        formats = dataclasses.replace(formats, embedding=embedding, int4_symmetric=symmetric, lm_head=lm_head)
        if formats.embedding in _QUANTISED:
            raise UserError(f"--embedding-precision {formats.embedding} does not exist for {target.name}; use fp16.")
    for option, value in (("precision", options.precision), ("lm-head-precision", formats.lm_head)):
        if value in target.calibrated_precisions and not calibrated:
            raise UserError(
                f"--{option} {value} for {target.name} needs the ranges of values on questions; export with --target "
                f"cpu, then run  grip-edge calibrate BUNDLE --target {target.name} --precision {value} --out DIR ."
            )
        if value not in allowed:
            listed = ", ".join(allowed)
            raise UserError(f"--{option} {value} does not exist for {target.name}; choose from: {listed}.")
    if target.half_compute and "fp32" in _parts(formats) and _parts(formats) != {"fp32"}:
        raise UserError(f"{target.name} computes in one float type: fp32 cannot stand beside other precisions.")
    return dataclasses.replace(formats, cache=_cache_format(options, target, formats))


def _cache_format(options: PrecisionOptions, target: Target, formats: WeightFormats) -> str | None:
    if target.cache_choice:
        return formats.cache
    if options.cache is not None:
        raise UserError(f"--cache-precision is a choice for --target {CPU.name}; {target.name} has its own; drop it.")
    return None


def formats_for_heads(formats: WeightFormats, options: PrecisionOptions, head_dim: int) -> WeightFormats:
    """With caches in fp32 where the decoder's heads are of a width that keeps the standard attention."""
    if formats.cache != "fp16" or head_dim % FUSED_HEAD_MULTIPLE == 0:
        return formats
    if options.cache is not None:
        raise UserError(
            f"--cache-precision {options.cache} is for heads of a multiple of {FUSED_HEAD_MULTIPLE}; this model's have "
            f"a width of {head_dim}; choose fp32."
        )
    return dataclasses.replace(formats, cache="fp32")


def computes_in_half(formats: WeightFormats, target: Target) -> bool:
    return target.half_compute and formats.decoder != "fp32"


def without_halves(formats: WeightFormats) -> WeightFormats:
    """fp16 parts as fp32: where arithmetic is in fp16, storage follows from it."""
    return dataclasses.replace(
        formats,
        vision=plain_scheme(formats.vision),
        decoder=plain_scheme(formats.decoder),
        lm_head=plain_scheme(formats.lm_head),
        embedding=plain_scheme(formats.embedding),
    )


def plain_scheme(scheme: str) -> str:
    return "fp32" if scheme == "fp16" else scheme


def _parts(formats: WeightFormats) -> set[str]:
    return {formats.vision, formats.decoder, formats.lm_head, formats.embedding}
