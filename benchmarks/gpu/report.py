"""``RESULTS/*.json`` -> ``RESULTS/gpu.md``: one table per measurement, and what was left out.

python benchmarks/gpu/report.py RESULTS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_UNITS = ("_ms", "_us")


def table(rows: list[dict[str, Any]]) -> str:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---:" for _ in columns) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(_cell(name, row[name]) for name in columns) + " |" for row in rows)])


def _cell(name: str, value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) and name.endswith(_UNITS) else str(value)


def section(path: Path) -> str:
    document = json.loads(path.read_text())
    rows = document.pop("rows")
    facts = ", ".join(f"{name} {value}" for name, value in document.items())
    return "\n\n".join([f"## {path.stem}", facts, *([table(rows)] if rows else [])])


def main() -> None:
    folder = Path(sys.argv[1])
    device = folder / "device.txt"
    parts = ["# On a GPU", device.read_text().strip() if device.is_file() else "No device."]
    parts += [section(path) for path in sorted(folder.glob("*.json"))]
    skipped = (folder / "skipped.txt").read_text().splitlines() if (folder / "skipped.txt").is_file() else []
    parts += ["## Left out", "\n".join(f"- {line.removeprefix('skipped: ')}" for line in skipped) or "Nothing."]
    (folder / "gpu.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
