"""A worker that computes nothing: its settings say how it answers, and how it ends.

It prints as talkative libraries do, from Python and past it, which must not disturb the protocol.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.peers.protocol import Message, serve


class StandIn:
    def __init__(self, settings: Message) -> None:
        self._settings = settings
        print("loading, from Python", flush=True)  # noqa: T201
        os.write(1, b"loading, past Python\n")
        if settings.get("ends") == "raises while loading":
            raise ValueError("no such\nmodel")

    def versions(self) -> Mapping[str, str]:
        return {"stand-in": "1.0"}

    def answer(self, kept: int, new_tokens: int) -> Message:
        if self._settings.get("ends") == "dies":
            os._exit(3)
        ttft_ms = float(self._settings.get("ttft_ms", 10.0)) * kept / 576
        return {
            "vision_ms": 1.0,
            "ttft_ms": ttft_ms,
            "decode_ms": 20.0,
            "first_token_at": time.monotonic(),
            "tokens": list(range(new_tokens)),
            "prompt_tokens": kept + 32,
            "read_bytes_per_sec": 4e9,
            "int8_operations_per_sec": 2e12,
        }

    def check(self, folder: Path) -> Message:
        np.save(folder / "features.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
        return {"features": str(folder / "features.npy"), "logits": None, "tokens": [1, 2, 3]}


if __name__ == "__main__":
    serve(StandIn)
