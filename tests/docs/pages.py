"""Where the documentation's sources are, and what the tests read of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import grip_edge

CHECKOUT = Path(grip_edge.__file__).parent.parent
DOCS = CHECKOUT / "docs"


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def run_python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, with the package of this checkout."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    return subprocess.run((sys.executable, *arguments), env=environment, capture_output=True, text=True)


def table_rows(text: str, first_column: str) -> list[list[str]]:
    """Cells of the rows below the Markdown table head that starts with ``first_column``."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {first_column} |"):
            break
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows[1:]  # behind the rule
