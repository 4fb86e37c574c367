"""The number formats of an export whose checkpoint brings 4-bit weights of its own: their blocks are taken over."""

from __future__ import annotations

from dataclasses import replace

from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.prequantised import PackedMatrix
from grip_edge.export.unpacking import block_of
from grip_edge.manifest import WeightFormats


def own_blocks(options: PrecisionOptions, checkpoint: Checkpoint) -> WeightFormats:
    """UserError if other blocks are asked for than those of the checkpoint."""
    formats = options.formats
    blocks = {block_of(tensor) for tensor in checkpoint.tensors.values() if isinstance(tensor, PackedMatrix)}
    if not blocks or formats.decoder != "int4":
        return formats
    if options.int4_block not in (None, *blocks) or options.int4_symmetric:
        option = "int4-symmetric" if options.int4_symmetric else f"int4-block {options.int4_block}"
        found = ", ".join(map(str, sorted(blocks)))
        raise UserError(
            f"--{option}: '{checkpoint.folder}' comes in int4 with blocks of {found} and zero points, which are kept; "
            "leave the option out."
        )
    return replace(formats, int4_block=max(blocks), int4_symmetric=False)
