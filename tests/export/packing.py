"""AWQ's and GPTQ's checkpoints, written from their published layouts in plain numpy, one number at a time.

Independent of what reads them: the restored weights are computed here from the codes before they are packed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Array = NDArray[Any]

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclass(frozen=True)
class Layout:
    """``act_order`` puts inputs into groups at random; ``group`` -1 is one group of all inputs."""

    method: str
    group: int
    version: int = 1
    act_order: bool = False

    @property
    def config(self) -> dict[str, Any]:
        if self.method == "awq":
            return {"quant_method": "awq", "bits": 4, "group_size": self.group, "zero_point": True, "version": "GEMM"}
        name = "gptq" if self.version == 1 else "gptq_v2"
        common = {"quant_method": "gptq", "bits": 4, "group_size": self.group, "desc_act": self.act_order}
        return {**common, "sym": False, "checkpoint_format": name}


def pack_layer(weight: Array, layout: Layout, seed: int) -> tuple[dict[str, Array], Array]:
    """weight [out,in] -> its parts, and the weight that they stand for, fp32 [out,in]."""
    inputs, outputs = weight.shape[1], weight.shape[0]
    group = inputs if layout.group == -1 else layout.group
    group_of = np.arange(inputs) // group
    if layout.act_order:
        group_of = np.random.default_rng(seed).permutation(group_of)
    codes, zeros, scales = round_in_groups(weight.T, group_of)
    restored = (codes - zeros[group_of]).astype(np.float32) * scales.astype(np.float32)[group_of]
    if layout.method == "awq":
        parts = {"qweight": pack_columns(codes, AWQ_ORDER), "qzeros": pack_columns(zeros, AWQ_ORDER), "scales": scales}
    else:
        stored = (zeros - 1) % 16 if layout.version == 1 else zeros
        qweight = pack_columns(codes.T, range(8)).T
        parts = {"qweight": np.ascontiguousarray(qweight), "qzeros": pack_columns(stored, range(8)), "scales": scales}
        parts["g_idx"] = group_of.astype(np.int32)
    assert parts["scales"].shape == (group_of.max() + 1, outputs)
    return parts, np.ascontiguousarray(restored.T)


def round_in_groups(weight: Array, group_of: Array) -> tuple[Array, Array, Array]:
    """weight [in,out] -> codes [in,out], zero points [groups,out], scales fp16 [groups,out]."""
    codes = np.zeros(weight.shape, np.int64)
    groups = int(group_of.max()) + 1
    zeros, scales = np.zeros((groups, weight.shape[1]), np.int64), np.zeros((groups, weight.shape[1]), np.float16)
    for group in range(groups):
        rows = np.flatnonzero(group_of == group)
        for column in range(weight.shape[1]):
            part = weight[rows, column]
            low, high = min(part.min(), 0.0), max(part.max(), 0.0)
            scale = np.float16((high - low) / 15)
            zero = int(np.clip(np.rint(-low / np.float32(scale)), 0, 15))
            codes[rows, column] = np.clip(np.rint(part / np.float32(scale)) + zero, 0, 15)
            zeros[group, column], scales[group, column] = zero, scale
    return codes, zeros, scales


def pack_columns(codes: Array, order: Any) -> Array:
    """[rows,columns] -> int32 [rows, columns / 8]; nibble i of number c holds column 8 c + order[i]."""
    packed = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
    for number in range(packed.shape[1]):
        for nibble, column in enumerate(order):
            packed[:, number] |= codes[:, 8 * number + column].astype(np.uint32) << np.uint32(4 * nibble)
    return packed.view(np.int32)


def pack_checkpoint(source: Path, folder: Path, layout: Layout) -> dict[str, Array]:
    """The checkpoint with its decoder's layers packed; returns the weights that these stand for, by stored name."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    restored = {}
    for seed, name in enumerate(sorted(tensors)):
        if "language_model" in name and name.endswith("_proj.weight"):
            parts, restored[name] = pack_layer(tensors.pop(name).astype(np.float32), layout, seed)
            tensors |= {f"{name.removesuffix('.weight')}.{part}": array for part, array in parts.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": layout.config}))
    return restored


def restore_checkpoint(source: Path, folder: Path, restored: dict[str, Array]) -> None:
    """The checkpoint in fp32 with those weights in the place of its own."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors") | restored
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
