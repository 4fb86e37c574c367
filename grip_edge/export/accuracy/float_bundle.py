"""The graphs of a bundle in floats, as an export has them before the precision passes: fp32, weights only described.

Weights are read from the bundle's data files when their turn comes. What 16-bit bundles store stays the source of the
numbers; the casts around it are taken away.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import to_torch_dtype
from torch import Tensor

from grip_edge.bundle import Bundle
from grip_edge.errors import UserError
from grip_edge.export.layout import INLINE_BYTES
from grip_edge.export.passes.editing import set_weight
from grip_edge.export.passes.widen_weights import WidenWeights
from grip_edge.export.targets.greedy_token import drop_greedy_token
from grip_edge.export.targets.half_cache import drop_half_cache
from grip_edge.export.weights import FloatWeight, Weight, given_weight

FLOAT_FORMATS = ("fp32", "fp16", "bf16")
TARGET = "cpu"

_PARTS = ("vision", "decoder", "lm_head", "embedding")
_FLOAT_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def require_float_bundle(bundle: Bundle) -> None:
    """UserError where the weights have lost precision already, or the graphs are another target's."""
    manifest = bundle.manifest
    formats = manifest.weight_formats
    parts = {} if formats is None else {name: getattr(formats, name) for name in _PARTS}
    odd = sorted(f"{name} {value}" for name, value in parts.items() if value not in FLOAT_FORMATS)
    if odd:
        raise UserError(
            f"'{bundle.folder}' is quantised already ({', '.join(odd)}); expected a bundle in floats: export one with "
            "--precision fp16."
        )
    if manifest.target != TARGET:
        raise UserError(
            f"'{bundle.folder}' is made for {manifest.target}; expected a bundle for {TARGET}, whose graphs hold "
            "plain fp32 arithmetic."
        )
    if manifest.image.tiling is not None:
        raise UserError(
            f"'{bundle.folder}' cuts images into tiles; this version calibrates models with a fixed number of visual "
            "tokens."
        )


def float_model(bundle: Bundle, file_name: str) -> ir.Model:
    """The graph in fp32, its caches too; its weights are descriptions that read the bundle when they are made."""
    model = ir.load(bundle.path(file_name))
    drop_greedy_token(model)
    digests = {record.path: record.sha256 for record in bundle.manifest.files}
    for value in model.graph.initializers.values():
        weight = _describe(value.const_value, digests)
        if weight is not None:
            set_weight(value, weight)
    WidenWeights()(model)
    drop_half_cache(model)
    return model


def _describe(tensor: Any, digests: dict[str, str]) -> Weight | None:
    """None for constants, which stay inside the graph; small weights lie there too."""
    if isinstance(tensor, ir.ExternalTensor):
        path, dtype = Path(tensor.path), tensor.dtype
        shape = tensor.shape.numpy()
        recipe = f"{path.name} {digests.get(path.name, '')} {tensor.name}"
        read = partial(_read, path, int(tensor.offset or 0), int(tensor.length or 0), to_torch_dtype(dtype), shape)
        return (FloatWeight if dtype in _FLOAT_TYPES else Weight)(dtype, shape, recipe, read)
    if tensor is None or tensor.dtype not in _FLOAT_TYPES or not tensor.shape or tensor.nbytes >= INLINE_BYTES:
        return None
    raw = torch.frombuffer(bytearray(tensor.tobytes()), dtype=to_torch_dtype(tensor.dtype))
    return given_weight(raw.reshape(tensor.shape.numpy()))


def _read(path: Path, start_byte: int, count: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    data = np.fromfile(path, np.uint8, count=count, offset=start_byte)
    if data.size != count:
        raise UserError(f"{path} ended too early; the file changed while it was read.")
    return torch.from_numpy(data).view(dtype).reshape(shape)
