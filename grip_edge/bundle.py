"""A bundle on disk: a folder with ``grip.json``, the four graphs, their weights and the tokenizer.

``open_bundle`` checks what is cheap (schema, names, sizes) on every load; ``damage`` reads every byte.
``writing_bundle`` gives a temporary sibling folder that becomes the bundle only when it is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from grip_edge.errors import BundleError, ParityError, UserError
from grip_edge.manifest import FileRecord, Manifest

MANIFEST_NAME = "grip.json"
DEFAULT_BUNDLE = "grip-bundle"
GRAPH_NAMES = ("vision.onnx", "embed.onnx", "select.onnx", "decoder.onnx")
TOKENIZER_NAME = "tokenizer.json"
# In a partial bundle: what is finished (``export.journal``).
RESUME_NAME = "export-journal.jsonl"

_HASHED_AT_ONCE_BYTES = 2**20

_EXPORT_HINT = "grip-edge export --model llava-tiny --budget-range 0.1,0.5"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk, with what its ``grip.json`` says."""

    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def total_bytes(self) -> int:
        return sum(record.bytes for record in self.manifest.files)


def open_bundle(folder: str | Path) -> Bundle:
    """The bundle in ``folder``; BundleError if it is missing, incomplete, foreign or newer than this version."""
    bundle = read_bundle(folder)
    for record in bundle.manifest.files:
        problem = _size_problem(bundle.path(record.path), record)
        if problem is not None:
            raise BundleError(f"{bundle.path(record.path)}: {problem}; export the bundle again.")
    return bundle


def read_bundle(folder: str | Path) -> Bundle:
    """As ``open_bundle``, but trusts that the files are there: only ``grip.json`` is read and checked."""
    folder = Path(folder)
    manifest_path = folder / MANIFEST_NAME
    if not folder.exists():
        raise BundleError(f"There is no bundle at '{folder}'; make one with:  {_EXPORT_HINT} --out {folder}")
    if not manifest_path.is_file():
        raise BundleError(f"'{folder}' holds no {MANIFEST_NAME}, so it is no bundle; make one with:  {_EXPORT_HINT}")
    try:
        text = manifest_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{manifest_path} cannot be read ({error}); export the bundle again.") from None
    manifest = Manifest.from_json(text, str(manifest_path))
    listed = {record.path for record in manifest.files}
    missing = [name for name in (*GRAPH_NAMES, TOKENIZER_NAME) if name not in listed]
    if missing:
        raise BundleError(f"{manifest_path}: files does not list {', '.join(missing)}; export the bundle again.")
    for record in manifest.files:
        if Path(record.path).is_absolute() or ".." in Path(record.path).parts:
            raise BundleError(f"{manifest_path}: file '{record.path}' lies outside the bundle; do not trust it.")
    return Bundle(folder, manifest)


def damage(bundle: Bundle) -> Iterator[tuple[FileRecord, str | None]]:
    """For each file of the bundle, what is wrong with it to the last byte (None: nothing)."""
    for record in bundle.manifest.files:
        path = bundle.path(record.path)
        yield record, _size_problem(path, record) or _hash_problem(path, record)


def record_file(folder: Path, path: Path) -> FileRecord:
    return FileRecord(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path))


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASHED_AT_ONCE_BYTES):
            digest.update(block)
    return digest.hexdigest()


def replace_manifest(bundle: Bundle, manifest: Manifest) -> None:
    """Writes another manifest into the bundle's folder, in one step."""
    path = bundle.folder / MANIFEST_NAME
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(manifest.to_json(), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"Cannot write to '{path}' ({error.strerror}); the bundle is as it was.") from None


@contextmanager
def writing_bundle(folder: Path, force: bool) -> Iterator[Path]:
    """Yields a partial folder beside ``folder``; renamed to it on success.

    On failure it is removed, unless it holds ``RESUME_NAME``: then there is finished work that the next attempt finds
    again. A ``ParityError`` always removes it: the work is wrong.
    """
    if folder.exists() and not force:
        raise UserError(f"'{folder}' exists already; choose another --out, or replace it with --force.")
    if folder.exists() and not (folder / MANIFEST_NAME).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise UserError(f"'{folder}' exists and is no bundle, so --force does not replace it; choose another --out.")
    partial = partial_folder(folder)
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to '{folder.parent}' ({error.strerror}); choose another --out.") from None
    with _locked(partial):
        try:
            yield partial
            (partial / RESUME_NAME).unlink(missing_ok=True)
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
        except BaseException as error:
            if isinstance(error, ParityError) or not (partial / RESUME_NAME).is_file():
                shutil.rmtree(partial, ignore_errors=True)
            raise


def partial_folder(folder: Path) -> Path:
    """Where a bundle is while it is not complete."""
    return folder.with_name(f".{folder.name}.partial")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One export per folder at a time; the lock ends with the process, however that ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"Another export is writing '{folder}'; wait for it, or choose another --out.") from None
    finally:
        os.close(descriptor)


def _size_problem(path: Path, record: FileRecord) -> str | None:
    if not path.is_file():
        return f"missing, although {MANIFEST_NAME} lists it"
    found = path.stat().st_size
    return None if found == record.bytes else f"has {found} bytes, {MANIFEST_NAME} says {record.bytes}"


def _hash_problem(path: Path, record: FileRecord) -> str | None:
    try:
        found = sha256_of(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if found == record.sha256 else f"sha256 is {found[:12]}…, {MANIFEST_NAME} says {record.sha256[:12]}…"
