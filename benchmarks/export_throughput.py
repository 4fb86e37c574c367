"""Writing a bundle's weights against plainly copying the same checkpoint, alternating, on the same disk.

    python benchmarks/big_checkpoint.py --layers 4 --out /tmp/llava-4-layers
    python benchmarks/export_throughput.py --model /tmp/llava-4-layers --precision fp16 --precision int4

Timed is what grows with the model: reading, checking, transposing, quantising, hashing and writing every weight, up to
the data being on the disk (fsync). Not timed: tracing, and the comparison at the end. The copy reads and writes the
checkpoint's weight files in blocks of 4 MB. Both start with the checkpoint dropped from the page cache.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.table import Table

from grip_edge.catalog import find_model
from grip_edge.export.checkpoint import Checkpoint, open_checkpoint
from grip_edge.export.fill import write_weights
from grip_edge.export.graphs import bundle_graphs
from grip_edge.export.journal import Journal
from grip_edge.export.layout import Layout, lay_out, save_graph
from grip_edge.export.precision import PRECISIONS, PrecisionOptions
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.selector import choose_selector
from grip_edge.export.tracing import make_model

_BLOCK_BYTES = 1 << 22


@click.command()
@click.option("--model", required=True)
@click.option("--precision", "precisions", type=click.Choice(PRECISIONS), multiple=True, default=("fp16",))
@click.option("--repeats", type=int, default=3, show_default=True)
@click.option("--work", type=click.Path(path_type=Path, exists=True), help="Folder on the disk to measure.")
def main(model: str, precisions: tuple[str, ...], repeats: int, work: Path | None) -> None:
    checkpoint = open_checkpoint(find_model(model))
    files = sorted({tensor.file for tensor in checkpoint.tensors.values()})
    source_bytes = sum(file.stat().st_size for file in files)
    table = Table("precision", "written GB", "copy s", "export s", "export MB/s of source", "export / copy")
    for precision in precisions:
        layouts = _layouts(checkpoint, precision)
        copies, exports = [], []
        for _ in range(repeats):
            copies.append(_timed_copy(files, work))
            exports.append(_timed_export(layouts, files, work))
            print(f"{precision}: copy {copies[-1]:.1f} s, export {exports[-1]:.1f} s", flush=True)
        written = sum(layout.data_bytes for layout in layouts)
        ratio = median(export / copy for export, copy in zip(exports, copies, strict=True))
        table.add_row(
            precision,
            f"{written / 1e9:.2f}",
            f"{median(copies):.1f}",
            f"{median(exports):.1f}",
            f"{source_bytes / median(exports) / 1e6:.0f}",
            f"{ratio:.2f}",
        )
    Console().print(f"{checkpoint.folder}: {source_bytes / 1e9:.2f} GB, medians of {repeats}")
    Console().print(table)


def _layouts(checkpoint: Checkpoint, precision: str) -> list[Layout]:
    formats = PrecisionOptions(precision).formats
    with quiet_libraries():
        graphs = bundle_graphs(checkpoint, choose_selector("uniform", None, "", checkpoint))
        return [lay_out(make_model(graph, checkpoint, formats), graph.file_name) for graph in graphs]


def _timed_copy(files: list[Path], work: Path | None) -> float:
    with tempfile.TemporaryDirectory(dir=work) as folder:
        _drop_from_cache(files)
        start = time.perf_counter()
        for file in files:
            with file.open("rb") as source, (Path(folder) / file.name).open("wb") as target:
                shutil.copyfileobj(source, target, _BLOCK_BYTES)
                os.fsync(target.fileno())
        return time.perf_counter() - start


def _timed_export(layouts: list[Layout], files: list[Path], work: Path | None) -> float:
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        _drop_from_cache(files)
        start = time.perf_counter()
        journal = Journal(folder)
        for layout in layouts:
            save_graph(layout, folder)
            write_weights(layout, folder, journal, lambda place: None)
            with (folder / layout.data_file).open("rb") as file:
                os.fsync(file.fileno())
        return time.perf_counter() - start


def _drop_from_cache(files: list[Path]) -> None:
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
