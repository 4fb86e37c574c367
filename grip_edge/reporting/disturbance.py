"""Whether other programs were at work when a latency report was taken."""

from __future__ import annotations

from grip_edge.report import LatencyReport

# A machine that does nothing else is well below it, whatever its own last minute was.
_BUSY_LOAD_PER_CORE = 0.5


def other_load(report: LatencyReport) -> str | None:
    """The load before the start, in words; None where it was low or is unknown."""
    state, cores = report.state_before, report.machine.cpu_count or 1
    if state is None or state.load_average is None or state.load_average <= _BUSY_LOAD_PER_CORE * cores:
        return None
    return f"load average {state.load_average:.1f} on {cores} cores before the start"
