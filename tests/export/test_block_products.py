"""Products with weights in blocks. Reference: DequantizeLinear and MatMul, which ONNX Runtime fuses by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from grip_edge.export.passes.block_weights import BlockFormat, BlockWeights
from grip_edge.export.targets.block_products import BLOCK_PRODUCT, FuseBlockProducts
from grip_edge.export.weights import given_weight
from tests.export.comparing import assert_close, random_array
from tests.export.lowered import node_kinds

Array = NDArray[Any]
FORMATS = [BlockFormat(4, 32, True), BlockFormat(4, 32, False), BlockFormat(4, 128, False), BlockFormat(8, 128, True)]
ROWS = 3

MODEL = """
<ir_version: 11, opset_import: ["": 24]>
product (float[S,{inputs}] x) => (float[S,{outputs}] y, float[S,{outputs}] z)
{{
   y = MatMul (x, w)
   twice = Add (x, x)
   {second}
}}
"""
SHARED, ALONE = "z = MatMul (twice, w)", "z = Concat <axis = 0> (y)"


def quantised(inputs: int, outputs: int, form: BlockFormat, second: str = ALONE) -> ir.Model:
    model = ir.from_onnx_text(MODEL.format(inputs=inputs, outputs=outputs, second=second))
    weight = given_weight(torch.from_numpy(random_array(1, inputs, outputs)) / inputs**0.5)
    weight.name = "w"
    value = ir.Value(name="w", const_value=weight, type=ir.TensorType(weight.dtype), shape=ir.Shape((inputs, outputs)))
    for node in model.graph:
        if node.op_type == "MatMul":
            node.replace_input_with(1, value)
    model.graph.register_initializer(value)
    BlockWeights(["w"], form)(model)
    return model


def run(model: ir.Model, x: Array) -> list[Array]:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "4")
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, {"x": x})
    return outputs


@pytest.mark.parametrize("form", FORMATS, ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), [(256, 64), (384, 33), (128, 7)])
def test_numbers_are_those_of_the_standard_form(form: BlockFormat, inputs: int, outputs: int) -> None:
    """Also where the number of blocks is odd, and that of zero points no whole number of bytes."""
    standard, fused = quantised(inputs, outputs, form), quantised(inputs, outputs, form)
    FuseBlockProducts()(fused)
    assert BLOCK_PRODUCT in node_kinds(fused)
    assert not {"MatMul", "DequantizeLinear"} & node_kinds(fused)
    x = random_array(2, ROWS, inputs)
    for found, expected in zip(run(fused, x), run(standard, x), strict=True):
        assert np.abs(expected).max() > 0.1
        assert_close(str(form), found, expected, 1e-6)


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_two_products_share_a_matrix(form: BlockFormat) -> None:
    fused = quantised(256, 64, form, SHARED)
    FuseBlockProducts()(fused)
    x = random_array(2, ROWS, 256)
    once, twice = run(fused, x)
    assert_close("of twice the input", twice, 2 * once, 1e-5)
    assert len(fused.graph.initializers) == (2 if form.symmetric else 3)


@pytest.mark.parametrize("inputs", [200, 40])
def test_a_matrix_that_blocks_do_not_divide_stays(inputs: int) -> None:
    model = quantised(inputs, 30, FORMATS[0])
    FuseBlockProducts()(model)
    assert {"MatMul", "DequantizeLinear"} <= node_kinds(model)


def test_a_table_that_is_not_multiplied_stays() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 11, opset_import: ["": 24]>
        table (float[32,4] x) => (float[32,4] y)
        <int8[32,4] codes = {0}, float[1,4] scales = {1.0}>
        { restored = DequantizeLinear <axis = 0, block_size = 32> (codes, scales)  y = Add (x, restored) }"""
    )
    FuseBlockProducts()(model)
    assert node_kinds(model) == {"DequantizeLinear", "Add"}
