"""Output files that are complete or not there, and whose place is checked before the work that fills them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grip_edge.errors import UserError


def check_writable(path: Path) -> None:
    """UserError unless a file can be made, or an ordinary one replaced, at ``path``."""
    if path.exists() and not path.is_file():
        raise UserError(f"'{path}' exists and is no ordinary file; expected the name of a file to write.")
    if not path.parent.is_dir():
        raise UserError(f"Cannot write '{path}': there is no folder '{path.parent}'; create it first.")
    _temporary_beside(path).unlink()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its name when the block ends well, and vanishes otherwise."""
    check_writable(path)
    partial = _temporary_beside(path)
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())
        os.replace(partial, path.resolve())
    except OSError as error:
        raise UserError(f"Cannot write '{path}' ({error.strerror or error}); choose another place.") from None
    finally:
        partial.unlink(missing_ok=True)


def _temporary_beside(path: Path) -> Path:
    """A new empty file in the folder of ``path`` (behind links), so that renaming it is atomic."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.resolve().parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UserError(f"Cannot write '{path}' ({error.strerror}); choose another place.") from None
    os.close(descriptor)
    return Path(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
