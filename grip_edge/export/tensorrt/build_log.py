"""What TensorRT says while it builds; some of its warnings are errors here.

An input that it drops or a profile that cannot hold makes an engine that builds and then answers wrongly or fails on
the device.
"""

from __future__ import annotations

from typing import Any

from grip_edge.errors import GripEdgeError

_FATAL = ("Unused Input", "not self-consistent")
_LONGEST = 300

# A note on every integer input, whatever its type.
_EMPTY_WARNING = "has Int64 binding"


class BuildError(GripEdgeError):
    """TensorRT could not build the engine, or would have built a wrong one."""


def make_log(trt: Any) -> Any:
    """A logger of the package: collects what is a warning or worse in ``warnings`` and ``errors``."""

    class BuildLog(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.warnings: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            line = " ".join(message.split())[:_LONGEST]
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(line)
            elif severity == trt.ILogger.Severity.WARNING and line not in self.warnings and _EMPTY_WARNING not in line:
                self.warnings.append(line)

    return BuildLog()


def require_clean(graph: str, log: Any) -> None:
    """BuildError if a warning means that the engine is not the graph."""
    for line in (*log.errors, *log.warnings):
        if any(words in line for words in _FATAL):
            raise BuildError(f"{graph}: the engine would not be the graph: {line}")


def first_error(log: Any) -> str:
    return log.errors[0] if log.errors else "no reason was given"
