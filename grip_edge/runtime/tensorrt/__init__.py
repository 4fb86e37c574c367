"""Engines of TensorRT and TensorRT-RTX, run: one code for both packages, device memory through ``cuda-bindings``.

``graphs`` is the entry; it has the interface of ``runtime.onnx_backend.Graphs``. What the tests run are these files
over recorded engines and a driver in host memory; where they ran on a GPU stands in docs/gpu.md.
"""
