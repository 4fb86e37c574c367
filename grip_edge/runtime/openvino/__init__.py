"""The same ONNX bundle in OpenVINO, which has matrix products and attention in bf16 and int8 on AMX (CPUs).

``graphs`` is the entry; it has the interface of ``runtime.onnx_generation.OnnxRuntimeGraphs``.
"""
