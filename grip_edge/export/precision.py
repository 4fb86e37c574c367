"""What each ``--precision`` means: the number format of the weights in each part of the model.

    scheme        weights                              arithmetic on ONNX Runtime's CPU
    fp32          as they are                          fp32
    fp16, bf16    half the bytes on disk               fp32 (no 16-bit matrix products there: widened when loaded)
    int8          int8, one scale per output           int8: inputs are quantised on the fly, per tensor (W8A8)
    int8-weight   int8, one scale per 128 inputs       int8 with inputs quantised per block
    int4          4 bits, one scale per block          as int8-weight

The scorer is always fp32: it is small, and it decides. Embedding tables are read by row, for which int4 has no standard
form that ONNX Runtime runs without restoring the whole table; they go down to int8. With int4, which is for small
memory, the decoder's keys and values are fp16 where the target leaves the choice, with the others fp32.
Needs no torch. Not here: the passes that bring a graph to a scheme (``passes``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from grip_edge.errors import UserError
from grip_edge.manifest import WeightFormats

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8-weight", "int4")
EMBEDDING_PRECISIONS = ("fp32", "fp16", "bf16", "int8")
CACHE_PRECISIONS = ("fp32", "fp16")
INT4_BLOCKS = (32, 64, 128)
DEFAULT_INT4_BLOCK = 64

_FLOATS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class PrecisionOptions:
    """``None`` leaves the choice to ``precision``. The int4 options are errors where nothing is int4."""

    precision: str = "fp32"
    lm_head: str | None = None
    embedding: str | None = None
    int4_block: int | None = None
    int4_symmetric: bool | None = None
    cache: str | None = None

    def __post_init__(self) -> None:
        for option, value, known in (
            ("precision", self.precision, PRECISIONS),
            ("lm-head-precision", self.lm_head, PRECISIONS),
            ("embedding-precision", self.embedding, EMBEDDING_PRECISIONS),
            ("int4-block", self.int4_block, INT4_BLOCKS),
            ("cache-precision", self.cache, CACHE_PRECISIONS),
        ):
            if value is not None and value not in known:
                listed = ", ".join(str(choice) for choice in known)
                raise UserError(f"--{option} {value} does not exist; choose from: {listed}.")
        if "int4" not in (self.precision, self.lm_head):
            symmetry = "int4-asymmetric" if self.int4_symmetric is False else "int4-symmetric"
            for option, value in (("int4-block", self.int4_block), (symmetry, self.int4_symmetric)):
                if value is not None:
                    raise UserError(f"--{option} has no effect with --precision {self.precision}; drop one of them.")

    @property
    def formats(self) -> WeightFormats:
        """Quantised models keep the parts where a mistake costs most, and that are small, in 8 bits.

        int4 has zero points unless told otherwise: ONNX Runtime's CPU runs both forms at one speed, and theirs is the
        smaller error.
        """
        plain = self.precision in _FLOATS
        int4 = "int4" in (self.precision, self.lm_head)
        return WeightFormats(
            vision="int8-weight" if self.precision == "int4" else self.precision,
            decoder=self.precision,
            lm_head=self.lm_head or (self.precision if plain else "int8-weight"),
            embedding=self.embedding or (self.precision if plain else "int8"),
            int4_block=(self.int4_block or DEFAULT_INT4_BLOCK) if int4 else None,
            int4_symmetric=bool(self.int4_symmetric) if int4 else None,
            cache=self.cache or ("fp16" if self.precision == "int4" else "fp32"),
        )


def session_config(formats: WeightFormats, kept: Collection[str] = (), fixed_scales: bool = False) -> dict[str, str]:
    """What ONNX Runtime must be told to run these weights well; its own default is not the same in every version.

    ``fixed_scales``: inputs of products are quantised with them, for TensorRT. ONNX Runtime 1.31's own rewriting of
    that form gives wrong numbers where attention is made of elementary operators (docs/log.md): it is turned off.
    ``kept`` are the formats of layers that have another one than their part of the model. Level 4 quantises the inputs
    of a product with block-quantised weights per block (relative error 0.5 %). At level 0 a row times 8-bit weights
    took 80 times as long: the matrix was restored each time.
    """
    if fixed_scales:
        return {"session.disable_quant_qdq": "1"}
    blocks = {"int8-weight", "int4"} & {formats.vision, formats.decoder, formats.lm_head, *kept}
    return {"session.qdq_matmulnbits_accuracy_level": "4"} if blocks else {}
