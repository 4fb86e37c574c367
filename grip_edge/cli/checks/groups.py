"""The checks by group, and a run of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from grip_edge.cli.checks import backends, device, host, machine
from grip_edge.cli.checks.finding import Finding

Check = Callable[[], Finding]

GROUPS: dict[str, tuple[Check, ...]] = {
    "device": (
        device.check_python,
        device.check_images,
        device.check_tokenizer,
        device.check_cpu,
        device.check_model,
    ),
    "backends": (
        backends.check_openvino,
        backends.check_nvml,
        backends.check_cuda,
        backends.check_rtx_provider,
        partial(backends.check_engines, "tensorrt"),
        partial(backends.check_engines, "tensorrt_rtx"),
    ),
    "host": tuple(partial(host.check_extra, extra) for extra in host.EXTRAS),
    "machine": (machine.check_memory, machine.check_state, machine.check_energy),
}


def run_checks(groups: Sequence[str], on_step: Callable[[str, int, int], None] = lambda *_: None) -> list[Finding]:
    checks = [check for group in groups for check in GROUPS[group]]
    findings = []
    for number, check in enumerate(checks):
        on_step("doctor", number, len(checks))
        findings.append(check())
    return findings
