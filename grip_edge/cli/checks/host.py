"""What hosts need, by extra, tried in processes of their own: these packages are large, and a broken one must not take
this program down.
"""

from __future__ import annotations

import platform

from grip_edge.cli.checks.finding import MISSING, Finding, in_child
from grip_edge.cli.extras import too_old_for

_TORCH = """
import torch
x = torch.ones(4, 4, requires_grad=True)
(x @ x).sum().backward()
assert x.grad is not None and x.grad.sum() == 128
where = 'CUDA' if torch.cuda.is_available() else 'CPU only'
"""
_PROGRAMS = {
    "export": (
        _TORCH + "import onnx, onnx_ir, onnxscript, safetensors, transformers\n"
        "print(f'PyTorch {torch.__version__} ({where}) took a gradient; transformers {transformers.__version__}, '\n"
        "      f'ONNX {onnx.__version__} import')"
    ),
    "train": _TORCH
    + "import accelerate\nprint(f'PyTorch {torch.__version__} ({where}), accelerate {accelerate.__version__}')",
    "report": (
        "import io, matplotlib\nfrom matplotlib.figure import Figure\nfile = io.BytesIO()\n"
        "Figure().savefig(file, format='png')\n"
        "print(f'matplotlib {matplotlib.__version__} drew a picture of {len(file.getvalue())} bytes')"
    ),
}


EXTRAS = tuple(_PROGRAMS)


def check_extra(extra: str) -> Finding:
    if too_old_for(extra):
        fact = f"[{extra}] is for Python 3.11 or newer; this is {platform.python_version()}"
        return Finding(extra, MISSING, fact, "Do it on another machine; a bundle is a folder that can be copied.")
    return in_child(extra, _PROGRAMS[extra], f"pip install 'grip-edge[{extra}]'")
