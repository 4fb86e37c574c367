"""What the device needs: Python and the packages of ``infer``, each at work on a small example."""

from __future__ import annotations

import io
import platform
import sys

import numpy as np

from grip_edge.cli.checks.attention import check_attention
from grip_edge.cli.checks.finding import BROKEN, OK, Finding, tried

_LEAST_PYTHON = (3, 10)
_OPSET_24_PYTHON = (3, 11)
_MIB = 2**20


def check_python() -> Finding:
    found = f"Python {platform.python_version()} at {sys.executable}"
    if sys.version_info >= _LEAST_PYTHON:
        return Finding("python", OK, found, needed=True)
    return Finding("python", BROKEN, found, f"Install Python {_LEAST_PYTHON[0]}.{_LEAST_PYTHON[1]} or newer.", True)


def check_images() -> Finding:
    def work() -> str:
        from PIL import Image, __version__

        levels = np.full((8, 8, 3), 200, np.uint8)
        for kind in ("PNG", "JPEG", "WEBP"):
            file = io.BytesIO()
            Image.fromarray(levels).save(file, kind)
            file.seek(0)
            difference = np.abs(np.asarray(Image.open(file).convert("RGB"), np.int64) - 200).max()
            if difference > 8:
                raise ValueError(f"{kind} gives back other colours")
        return f"Pillow {__version__} wrote and read PNG, JPEG and WebP"

    return tried("images", work, "Pillow", "pip install --force-reinstall pillow")


def check_tokenizer() -> Finding:
    def work() -> str:
        from tokenizers import Tokenizer, __version__
        from tokenizers.models import WordLevel
        from tokenizers.pre_tokenizers import Whitespace

        tokenizer = Tokenizer(WordLevel({"red": 0, "circle": 1, "?": 2}, unk_token="?"))
        tokenizer.pre_tokenizer = Whitespace()
        if tokenizer.encode("red circle ?").ids != [0, 1, 2]:
            raise ValueError("wrong tokens")
        return f"tokenizers {__version__} read a question"

    return tried("tokenizer", work, "tokenizers", "pip install --force-reinstall tokenizers")


def check_cpu() -> Finding:
    """The newest operator that bundles use, opset 24's Attention, against NumPy. Python 3.10 has no ONNX Runtime that
    knows it: there the elementary operators of the bundles for JetPack 6.
    """

    def work() -> str:
        import onnxruntime as ort

        try:
            check_attention("CPUExecutionProvider")
        except Exception:
            if sys.version_info >= _OPSET_24_PYTHON:
                raise
            check_attention("CPUExecutionProvider", elementary=True)
            return (
                f"ONNX Runtime {ort.__version__} computed attention of opset 20 as NumPy does: bundles for jetpack-6.2 "
                "run here, others take Python 3.11"
            )
        return f"ONNX Runtime {ort.__version__} computed opset-24 Attention as NumPy does"

    least = "1.30" if sys.version_info >= _OPSET_24_PYTHON else "1.23"
    return tried("cpu", work, "onnxruntime", f"pip install 'onnxruntime>={least}'")


def check_model() -> Finding:
    def work() -> str:
        from grip_edge import __version__
        from grip_edge.catalog import EMBEDDED, find_model

        name = next(iter(EMBEDDED))
        size = sum(path.stat().st_size for path in find_model(name).rglob("*") if path.is_file())
        return f"grip-edge {__version__} with {name} ({size / _MIB:.1f} MiB)"

    return tried("grip-edge", work, "grip-edge", "pip install --force-reinstall grip-edge")
