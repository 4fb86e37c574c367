"""Reference: ``packing``, which writes the layouts in plain numpy and tells the weights that they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint, canonical_name, open_checkpoint
from grip_edge.export.exporter import ExportOptions, export_bundle
from grip_edge.export.graphs import decoder_graph
from grip_edge.export.own_blocks import own_blocks
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.prequantised import PackedMatrix
from grip_edge.export.quantise import unpack_nibbles
from grip_edge.export.unpacking import PackedWeight, unpack
from tests.export.comparing import STANDARD, assert_close, write_graph
from tests.export.packing import Layout, pack_checkpoint, restore_checkpoint
from tests.export.test_passes import decoder_inputs

Array = NDArray[Any]

LAYOUTS = {
    "awq": Layout("awq", 16),
    "awq, one group": Layout("awq", -1),
    "gptq": Layout("gptq", 16),
    "gptq v2": Layout("gptq", 16, version=2),
    "gptq, act-order": Layout("gptq", 16, act_order=True),
    "gptq, one group": Layout("gptq", -1),
}
ONE_LAYER = "language_model.layers.1.mlp.down_proj"


@pytest.fixture(params=LAYOUTS)
def packed(
    request: pytest.FixtureRequest, toy_checkpoint: Path, tmp_path: Path
) -> tuple[Checkpoint, dict[str, Array], Layout]:
    layout = LAYOUTS[request.param]
    restored = pack_checkpoint(toy_checkpoint, tmp_path / "packed", layout)
    return open_checkpoint(tmp_path / "packed"), restored, layout


Packed = tuple[Checkpoint, dict[str, Array], Layout]


def test_restored_weights_equal_the_packer_s(packed: Packed) -> None:
    checkpoint, restored, _ = packed
    assert checkpoint.is_packed
    for name, expected in restored.items():
        stored = checkpoint.tensors[canonical_name(name)]
        assert (stored.name, stored.shape, stored.dtype) == (name, expected.shape, "F16")
        np.testing.assert_array_equal(checkpoint.read(canonical_name(name)).numpy(), expected)


def test_the_int4_graph_keeps_the_checkpoint_s_own_codes(packed: Packed, toy_checkpoint: Path, tmp_path: Path) -> None:
    """Against the fp32 graph of the restored weights: only ONNX Runtime's arithmetic differs, nothing is rounded."""
    checkpoint, restored, layout = packed
    restore_checkpoint(toy_checkpoint, tmp_path / "restored", restored)
    formats = own_blocks(PrecisionOptions("int4", lm_head="fp32"), checkpoint)
    # Of 48 and 96 inputs in one group each, blocks of 16 and 32 are made; the larger is named.
    assert (formats.int4_block, formats.int4_symmetric) == (32 if layout.group == -1 else 16, False)
    found, expected = tmp_path / "found", tmp_path / "expected"
    for folder in (found, expected):
        folder.mkdir()
    write_graph(decoder_graph(checkpoint), checkpoint, found, formats, STANDARD)
    plain = open_checkpoint(tmp_path / "restored")
    write_graph(decoder_graph(plain), plain, expected)
    inputs = decoder_inputs(checkpoint)
    assert_close("logits", logits(found, inputs), logits(expected, inputs), 1e-4)

    graph = ir.load(found / "decoder.onnx").graph
    assert sum(node.op_type == "DequantizeLinear" for node in graph) == 7 * checkpoint.text.layers
    sorted_inputs = [node for node in graph if node.op_type == "Gather" and "_sorted" in str(node.outputs[0].name)]
    assert bool(sorted_inputs) == layout.act_order
    matrix = checkpoint.tensors[f"{ONE_LAYER}.weight"]
    assert isinstance(matrix, PackedMatrix)
    codes = graph.initializers["layers.1.mlp.down_proj.weight"].const_value
    assert codes is not None
    expected_codes = unpack(matrix, checkpoint.read_stored).codes.numpy()
    np.testing.assert_array_equal(codes.numpy().astype(np.uint8), expected_codes)


def logits(folder: Path, inputs: dict[str, Array]) -> Array:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    session = ort.InferenceSession(folder / "decoder.onnx", options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], inputs)[0])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_other_precisions_start_from_the_restored_weights(toy_checkpoint: Path, tmp_path: Path, precision: str) -> None:
    restored = pack_checkpoint(toy_checkpoint, tmp_path / "packed", LAYOUTS["gptq, act-order"])
    restore_checkpoint(toy_checkpoint, tmp_path / "restored", restored)
    data = []
    for name in ("packed", "restored"):
        checkpoint = open_checkpoint(tmp_path / name)
        (tmp_path / f"{name} graph").mkdir()
        write_graph(
            decoder_graph(checkpoint), checkpoint, tmp_path / f"{name} graph", PrecisionOptions(precision).formats
        )
        data.append((tmp_path / f"{name} graph" / "decoder.onnx.data").read_bytes())
    assert data[0] == data[1]


def test_targets_without_zero_points_refuse_packed_weights(toy_checkpoint: Path, tmp_path: Path) -> None:
    pack_checkpoint(toy_checkpoint, tmp_path / "packed", LAYOUTS["awq"])
    checkpoint = open_checkpoint(tmp_path / "packed")
    symmetric = PrecisionOptions("int4", int4_symmetric=True).formats
    with pytest.raises(UserError, match="zero points, which this target does not take; choose --precision fp16"):
        write_graph(decoder_graph(checkpoint), checkpoint, tmp_path, symmetric)


def test_export_of_a_packed_checkpoint(toy_checkpoint: Path, toy_scorer: Path, tmp_path: Path) -> None:
    """The whole export, with its parity check against transformers on restored weights."""
    pack_checkpoint(toy_checkpoint, tmp_path / "packed", LAYOUTS["awq"])
    options = ExportOptions(
        model=str(tmp_path / "packed"),
        budget_range="0.1,0.5",
        scorer=toy_scorer,
        out=tmp_path / "bundle",
        precision=PrecisionOptions("int4", lm_head="fp32", embedding="fp32"),
    )
    manifest = export_bundle(options).manifest
    assert manifest.weight_formats is not None
    assert manifest.weight_formats.int4_block == 16
    assert manifest.parity_method == "streamed"
    cosines = [result.logits_cosine or 0 for result in manifest.parity]
    assert min(cosines) > 0.999, cosines


def test_a_description_can_be_turned_and_cast(toy_checkpoint: Path, tmp_path: Path) -> None:
    restored = pack_checkpoint(toy_checkpoint, tmp_path / "packed", LAYOUTS["gptq"])
    checkpoint = open_checkpoint(tmp_path / "packed")
    matrix = checkpoint.tensors[f"{ONE_LAYER}.weight"]
    assert isinstance(matrix, PackedMatrix)
    expected = restored[matrix.name]
    weight = PackedWeight(ir.DataType.FLOAT, matrix, "origin", checkpoint.read_stored)
    np.testing.assert_array_equal(weight.make().numpy(), expected)
    turned = weight.transposed().cast(ir.DataType.FLOAT16)
    assert turned.turned
    assert turned.sizes == expected.T.shape
    np.testing.assert_array_equal(turned.make().numpy(), expected.T.astype(np.float16))
    assert turned.transposed().recipe == "origin as FLOAT16"
    assert "g_idx" in checkpoint.recipe(f"{ONE_LAYER}.weight")


def test_options_that_the_checkpoint_decides_are_refused(toy_checkpoint: Path, tmp_path: Path) -> None:
    pack_checkpoint(toy_checkpoint, tmp_path / "packed", LAYOUTS["awq"])
    checkpoint = open_checkpoint(tmp_path / "packed")
    for options, named in (({"int4_block": 32}, "--int4-block 32"), ({"int4_symmetric": True}, "--int4-symmetric")):
        with pytest.raises(UserError, match=f"{named}: .* comes in int4 with blocks of 16"):
            own_blocks(PrecisionOptions("int4", **options), checkpoint)
    fp16 = PrecisionOptions("fp16")
    assert own_blocks(fp16, checkpoint) == fp16.formats
    assert own_blocks(PrecisionOptions("int4"), open_checkpoint(toy_checkpoint)) == PrecisionOptions("int4").formats


Damage = Callable[[dict[str, Array], dict[str, Any]], None]


def config_says(**fields: Any) -> Damage:
    return lambda tensors, config: config["quantization_config"].update(fields)


def part(name: str, change: Callable[[Array], Array]) -> Damage:
    def act(tensors: dict[str, Array], config: dict[str, Any]) -> None:
        key = next(key for key in sorted(tensors) if key.endswith(f"down_proj.{name}"))
        tensors[key] = np.ascontiguousarray(change(tensors[key]))

    return act


def without(name: str) -> Damage:
    def act(tensors: dict[str, Array], config: dict[str, Any]) -> None:
        del tensors[next(key for key in sorted(tensors) if key.endswith(f"down_proj.{name}"))]

    return act


READS = "this version reads"
ELSEWHERE = "stored in another layout"
WRONG: dict[str, tuple[Damage, str]] = {
    "another method": (config_says(quant_method="hqq"), f"quant_method is hqq; {READS} awq or gptq"),
    "no method": (config_says(quant_method=""), "quant_method is missing"),
    "another layout": (config_says(checkpoint_format="marlin"), f"the layout is marlin; {READS} gptq or gptq_v2"),
    "3 bits": (config_says(bits=3), f"bits is 3; {READS} 4"),
    "odd groups": (config_says(group_size=24), f"group_size is 24; {READS} -1 or a power of two"),
    "other groups": (config_says(group_size=32), rf"gptq with groups of 32 of \d+ inputs expects .* {ELSEWHERE}"),
    "awq named": (config_says(quant_method="awq", checkpoint_format="gemm"), f"awq with groups of 16 .* {ELSEWHERE}"),
    "no config": (lambda tensors, config: config.pop("quantization_config"), "has no quantization_config"),
    "turned": (part("qweight", np.transpose), f"qweight' is I32 .* {ELSEWHERE}"),
    "wide codes": (part("qweight", lambda a: a.astype(np.int64)), "qweight' is I64 .* expects I32"),
    "integer scales": (part("scales", lambda a: a.astype(np.int32)), "scales' is I32 .* expects F16 or BF16 or F32"),
    "short g_idx": (part("g_idx", lambda a: a[:-1]), "g_idx' is I32"),
    "no zero points": (without("qzeros"), r"lacks '.*down_proj\.qzeros' beside the other parts"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_layouts_are_refused_in_one_line(toy_checkpoint: Path, tmp_path: Path, name: str) -> None:
    damage, message = WRONG[name]
    pack_checkpoint(toy_checkpoint, tmp_path / "packed", LAYOUTS["gptq"])
    damaged(tmp_path / "packed", damage)
    with pytest.raises(UserError, match=message) as raised:
        open_checkpoint(tmp_path / "packed")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("change", [lambda a: np.zeros_like(a), lambda a: a - 1, lambda a: a + 1])
def test_groups_of_unequal_size_are_refused(
    toy_checkpoint: Path, tmp_path: Path, change: Callable[[Array], Array]
) -> None:
    pack_checkpoint(toy_checkpoint, tmp_path / "packed", LAYOUTS["gptq"])
    damaged(tmp_path / "packed", part("g_idx", change))
    checkpoint = open_checkpoint(tmp_path / "packed")
    name = next(name for name in sorted(checkpoint.tensors) if name.endswith("down_proj.weight"))
    with pytest.raises(UserError, match="does not put 16 inputs into each of"):
        checkpoint.read(name)


def test_scales_that_are_not_finite_are_refused(toy_checkpoint: Path, tmp_path: Path) -> None:
    pack_checkpoint(toy_checkpoint, tmp_path / "packed", LAYOUTS["awq"])
    damaged(tmp_path / "packed", part("scales", lambda a: a * np.float16("nan")))
    checkpoint = open_checkpoint(tmp_path / "packed")
    name = next(name for name in sorted(checkpoint.tensors) if name.endswith("down_proj.weight"))
    with pytest.raises(UserError, match=r"scales' holds nan"):
        checkpoint.read(name)


def damaged(folder: Path, damage: Damage) -> None:
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    damage(tensors, config)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


def test_nibbles_come_back() -> None:
    packed = torch.tensor([0xF0, 0x21, 0x08], dtype=torch.uint8)
    assert unpack_nibbles(packed, (5,), signed=False).tolist() == [0, 15, 1, 2, 8]
    assert unpack_nibbles(packed, (5,), signed=True).tolist() == [0, -1, 1, 2, -8]
