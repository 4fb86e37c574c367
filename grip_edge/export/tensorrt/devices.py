"""What a build is for: compute capabilities, from ``--device`` or from the GPU of this machine."""

from __future__ import annotations

import re

from grip_edge.cuda_device import compute_capability
from grip_edge.errors import UserError
from grip_edge.export.targets.table import BOARDS, TENSORRT, Target

_CAPABILITY = re.compile(r"sm(\d+)")


def resolve_device(device: str | None, target: Target) -> tuple[int, ...]:
    """Compute capabilities, as in 86 for 8.6, ascending."""
    if device is None:
        return (_own_capability(target),)
    if device in BOARDS:
        capabilities = {BOARDS[device].compute_capability}
    else:
        matches = [_CAPABILITY.fullmatch(part.strip()) for part in device.split(",")]
        if not all(matches):
            boards = ", ".join(BOARDS)
            raise UserError(f"--device is a board ({boards}) or compute capabilities such as sm86; got '{device}'.")
        capabilities = {int(match.group(1)) for match in matches if match is not None}
    if target.engine == TENSORRT:
        own = _own_capability(target)
        if capabilities != {own}:
            raise UserError(f"TensorRT builds for the GPU it runs on, sm{own}; got --device {device}.")
    return tuple(sorted(capabilities))


def _own_capability(target: Target) -> int:
    found = compute_capability()
    if found is None:
        hint = "give --device, such as sm86" if target.engine != TENSORRT else "build on the device itself"
        raise UserError(f"This machine has no CUDA device to build for; {hint}.")
    return found
