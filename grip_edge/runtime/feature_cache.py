"""The vision features of the last few images, unpruned, so that a follow-up question re-scores but does not re-encode.

Keyed by the content of the preprocessed pixels: the same picture from another file or array is the same picture.
Not thread-safe, unless the capacity is 0.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from grip_edge.runtime.onnx_backend import ImageFeatures


class FeatureCache:
    """Forgets the least recently used image beyond ``capacity``; a capacity of 0 keeps nothing."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._features: OrderedDict[bytes, ImageFeatures] = OrderedDict()

    def key(self, pixels: NDArray[np.float32]) -> bytes:
        # Processors have instructions for SHA-256: half the time of BLAKE2.
        return hashlib.sha256(np.ascontiguousarray(pixels).data).digest() if self.capacity else b""

    def get(self, key: bytes) -> ImageFeatures | None:
        """What is known of the image."""
        if key not in self._features:
            return None
        self._features.move_to_end(key)
        return self._features[key]

    def put(self, key: bytes, features: ImageFeatures) -> None:
        if not self.capacity:  # nothing is written, so that threads may share a pipeline that caches nothing
            return
        self._features[key] = features
        while len(self._features) > self.capacity:
            self._features.popitem(last=False)
