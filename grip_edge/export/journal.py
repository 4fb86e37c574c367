"""What an export has finished, one line per weight, so that a later one goes on from there.

A line holds the weight's recipe, where it ends in its data file, and the SHA-256 of that file up to there. On resume
the data is read and compared with these sums: whatever a crash lost or mangled is made again, the rest is kept.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from grip_edge.bundle import RESUME_NAME


@dataclass(frozen=True)
class Entry:
    data_file: str
    name: str
    recipe: str
    end_byte: int
    sha256: str


class Journal:
    """Opened in the bundle's partial folder; a line that was cut off in the middle ends what is known."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / RESUME_NAME
        self._entries = _read(self._path)

    def entries(self, data_file: str) -> list[Entry]:
        return [entry for entry in self._entries if entry.data_file == data_file]

    def keep(self, data_file: str, count: int) -> None:
        """Forgets all entries of a file but the first ``count``, and the line that was cut off."""
        others = [entry for entry in self._entries if entry.data_file != data_file]
        self._entries = [*others, *self.entries(data_file)[:count]]
        replacement = self._path.with_suffix(".new")
        replacement.write_text("".join(_line(entry) for entry in self._entries), encoding="utf-8")
        replacement.replace(self._path)

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))


def _read(path: Path) -> list[Entry]:
    entries: list[Entry] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entries.append(Entry(**json.loads(line)))
            except (ValueError, TypeError):
                break
    return entries


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry)) + "\n"
