"""Attention by ONNX Runtime and by NumPy: the newest operator that bundles use, or what it is made of."""

from __future__ import annotations

import numpy as np

from grip_edge.planning.onnx_bytes import FLOAT, Node, Port, model_bytes

_ATTENTION = Node("Attention", ("query", "key", "value"), ("y",))
_ELEMENTARY = [
    Node("MatMul", ("query", "key"), ("products",)),
    Node("Softmax", ("products",), ("weights",)),
    Node("MatMul", ("weights", "value"), ("y",)),
]


def check_attention(provider: str, elementary: bool = False) -> None:
    """Opset 24's operator, or, ``elementary``, products and softmax of opset 20. Raises what is wrong."""
    import onnxruntime as ort

    shape = (1, 2, 3, 4)
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal(shape, np.float32) for _ in range(3))
    feeds, nodes, opset = {"query": query, "key": key, "value": value}, [_ATTENTION], 24
    if elementary:
        feeds |= {"query": query / np.float32(np.sqrt(shape[-1])), "key": key.swapaxes(-1, -2)}
        nodes, opset = _ELEMENTARY, 20
    ports = [Port(name, FLOAT, feed.shape) for name, feed in feeds.items()]
    model = model_bytes(nodes, [], ports, [Port("y", FLOAT, shape)], opset)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} does not start; ONNX Runtime fell back to {session.get_providers()[0]}")
    weights = np.exp(query @ key.swapaxes(-1, -2) / np.sqrt(shape[-1]))
    expected = weights / weights.sum(-1, keepdims=True) @ value
    found = np.asarray(session.run(None, feeds)[0])
    difference = np.abs(found - expected)
    if difference.max() > 1e-3:
        raise ValueError(f"wrong numbers (largest difference {difference.max():.3g}, mean {difference.mean():.3g})")
