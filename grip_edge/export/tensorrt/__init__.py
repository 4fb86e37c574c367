"""From a bundle's graphs to engines of TensorRT or TensorRT-RTX, one code for both.

``build`` is the entry. Only the calls that TensorRT 10.3 to 11 and TensorRT-RTX 1.7 share are used. TensorRT-RTX builds
on a machine without a GPU; TensorRT needs the device. Not here: running engines (``runtime.tensorrt``).
"""
