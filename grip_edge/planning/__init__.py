"""Forecasts from a model's configuration alone: bytes, memory, operations and time, before anything is downloaded.

    shape       what the configuration says about sizes        published   configurations of known models
    formats     bytes of a matrix in each number format        bundle_size bytes of a bundle, file by file
    operations  FLOPs and bytes of each stage                  memory      what the device must hold
    devices     boards and cards, with sources                 cpu_speed   this machine's CPU, measured in place
    forecast    time by roofline, what fits, what pruning can save

Needs numpy, and onnxruntime to measure this machine. Not here: measuring a bundle (``runtime.bench``).
"""
