"""Checkpoints whose linear layers were quantised to 4 bits before (AWQ, GPTQ), as such layers lie in safetensors.

    X.qweight   int32, eight codes in one number:  AWQ [in, out / 8],  GPTQ [in / 8, out]
    X.qzeros    int32 [groups, out / 8]: zero points, packed along the outputs
    X.scales    fp16 [groups, out]
    X.g_idx     int32 [in], GPTQ only: the group of each input

A weight is (code - zero point) * scale of its group. AWQ packs outputs in the order 0 2 4 6 1 3 5 7; GPTQ in their own,
and in its first format stores zero points less one. Such a matrix stands for the tensor ``X.weight`` it was made of.
Read here: 4 bits in these layouts ("gemm" of AWQ, "gptq" and "gptq_v2" of GPTQ). Not covered: AWQ's "gemv" and
"marlin" layouts, other widths, fp8, bitsandbytes, compressed-tensors. Not here: the numbers (``unpacking``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grip_edge.catalog import CONFIG_NAME, StoredTensor
from grip_edge.errors import UserError

# Codes in one int32.
PACKED = 8

_FORMATS = {"awq": ("gemm",), "gptq": ("gptq", "gptq_v2")}
_PARTS = ("qweight", "qzeros", "scales", "g_idx")


@dataclass(frozen=True)
class PackedFormat:
    """``group_size`` -1: one group holds all inputs. ``zero_shift`` is added to stored zero points."""

    method: str
    group_size: int
    zero_shift: int


@dataclass(frozen=True)
class PackedMatrix:
    """Takes the place of the ``StoredTensor`` of a weight [out,in] in floats."""

    format: PackedFormat
    qweight: StoredTensor
    qzeros: StoredTensor
    scales: StoredTensor
    g_idx: StoredTensor | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.scales.shape[1], self.inputs

    @property
    def inputs(self) -> int:
        return self.qweight.shape[0] * (PACKED if self.format.method == "gptq" else 1)

    @property
    def group_size(self) -> int:
        return self.inputs if self.format.group_size == -1 else self.format.group_size

    @property
    def elements(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def dtype(self) -> str:
        """Of the restored weight: that of its scales."""
        return self.scales.dtype

    @property
    def file(self) -> Path:
        return self.qweight.file

    @property
    def name(self) -> str:
        return self.qweight.name.removesuffix(".qweight") + ".weight"

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        return tuple(part for part in (self.qweight, self.qzeros, self.scales, self.g_idx) if part is not None)


AnyTensor = StoredTensor | PackedMatrix


def with_packed(tensors: dict[str, StoredTensor], quantization_config: dict[str, Any] | None) -> dict[str, AnyTensor]:
    """``tensors`` with each set of packed parts as one matrix; UserError for what is not read here."""
    found: dict[str, AnyTensor] = dict(tensors)
    owners = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
    if quantization_config is None:
        if owners:
            raise UserError(f"{tensors[f'{owners[0]}.qweight'].file} holds packed weights, but {CONFIG_NAME} has no "
                            "quantization_config to tell how; copy the checkpoint's own.")  # fmt: skip
        return found
    form = _parse(quantization_config)
    for owner in owners:
        found[f"{owner}.weight"] = _matrix(owner, form, {part: tensors.get(f"{owner}.{part}") for part in _PARTS})
        for part in _PARTS:
            found.pop(f"{owner}.{part}", None)
    return found


def _parse(config: dict[str, Any]) -> PackedFormat:
    method = str(config.get("quant_method", "")).lower()
    layout = str(config.get("checkpoint_format") or config.get("format") or config.get("version") or "").lower()
    bits, group_size = config.get("bits", config.get("w_bit")), config.get("group_size", config.get("q_group_size"))
    if method not in _FORMATS:
        raise _unsupported(f"quant_method is {method or 'missing'}", "awq or gptq")
    layout = layout or _FORMATS[method][0]
    if layout not in _FORMATS[method]:
        raise _unsupported(f"the layout is {layout}", " or ".join(_FORMATS[method]))
    if bits != 4:
        raise _unsupported(f"bits is {bits}", "4")
    if not isinstance(group_size, int) or (group_size != -1 and (group_size < 16 or group_size & (group_size - 1))):
        raise _unsupported(f"group_size is {group_size}", "-1 or a power of two from 16 on")
    return PackedFormat(method, group_size, 1 if layout == "gptq" else 0)


def _unsupported(found: str, expected: str) -> UserError:
    return UserError(f"{CONFIG_NAME}: quantization_config: {found}; this version reads {expected}. "
                     "Take the checkpoint in fp16 instead.")  # fmt: skip


def _matrix(owner: str, form: PackedFormat, parts: dict[str, StoredTensor | None]) -> PackedMatrix:
    qweight, qzeros, scales, g_idx = (parts[name] for name in _PARTS)
    if qweight is None or qzeros is None or scales is None:
        missing = ", ".join(f"'{owner}.{name}'" for name in _PARTS[:3] if parts[name] is None)
        raise UserError(f"The checkpoint lacks {missing} beside the other parts of that layer; copy it again.")
    matrix = PackedMatrix(form, qweight, qzeros, scales, g_idx)
    _check_shapes(matrix)
    return matrix


def _check_shapes(matrix: PackedMatrix) -> None:
    """All that the layout promises; a file in another one is found here and not in garbled answers."""
    outputs, inputs = matrix.shape
    groups, remainder = divmod(inputs, matrix.group_size)
    packed_outputs = outputs // PACKED
    awq = matrix.format.method == "awq"
    expected: dict[str, tuple[StoredTensor, tuple[int, ...], tuple[str, ...]]] = {
        "qweight": (matrix.qweight, (inputs, packed_outputs) if awq else (inputs // PACKED, outputs), ("I32",)),
        "qzeros": (matrix.qzeros, (groups, packed_outputs), ("I32",)),
        "scales": (matrix.scales, (groups, outputs), ("F16", "BF16", "F32")),
    }
    if matrix.g_idx is not None:
        expected["g_idx"] = (matrix.g_idx, (inputs,), ("I32",))
    for stored, shape, dtypes in expected.values():
        if stored.shape != shape or stored.dtype not in dtypes or remainder or outputs % PACKED:
            raise UserError(
                f"{stored.file}: '{stored.name}' is {stored.dtype} {list(stored.shape)}; {matrix.format.method} with "
                f"groups of {matrix.group_size} of {inputs} inputs expects {' or '.join(dtypes)} {list(shape)}. It is "
                "stored in another layout than config.json says."
            )
