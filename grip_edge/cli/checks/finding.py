"""What a check gives, and the two ways to come to it: in this process, or in one of its own.

``missing`` is not installed; ``broken`` is installed and does not work; ``unknown`` cannot be told here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

OK, MISSING, BROKEN, UNKNOWN = "ok", "missing", "broken", "unknown"
_PATIENCE_S = 300


@dataclass(frozen=True)
class Finding:
    """``needed``: the device side does not work without it."""

    name: str
    state: str
    fact: str
    remedy: str = ""
    needed: bool = False


Check = Callable[[], Finding]


def tried(name: str, work: Callable[[], str], package: str, remedy: str) -> Finding:
    """``work`` gives the fact, or raises what is wrong; without ``package`` it is missing, not broken."""
    try:
        return Finding(name, OK, work(), needed=True)
    except ModuleNotFoundError as error:
        return Finding(name, MISSING, f"no module named {error.name}", remedy, needed=True)
    except Exception as error:  # whatever a broken installation raises
        return Finding(name, BROKEN, f"{package}: {one_line(str(error) or type(error).__name__)}", remedy, needed=True)


def in_child(name: str, program: str, remedy: str) -> Finding:
    """For what is large or might take this process down. ``program`` prints its fact."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(name, BROKEN, f"no answer after {_PATIENCE_S} s", remedy)
    if done.returncode == 0:
        return Finding(name, OK, done.stdout.strip().splitlines()[-1])
    last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    if last.startswith("ModuleNotFoundError"):
        return Finding(name, MISSING, last.partition(": ")[2], remedy)
    return Finding(name, BROKEN, one_line(last), remedy)


def one_line(text: str) -> str:
    return " ".join(text.split())[:200]
