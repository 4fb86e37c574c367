"""A quantised bundle's graphs, written from a bundle in floats with given layers kept in more bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from grip_edge.bundle import GRAPH_NAMES, Bundle, record_file
from grip_edge.export.accuracy.float_bundle import float_model
from grip_edge.export.fill import write_weights
from grip_edge.export.journal import Journal
from grip_edge.export.layout import lay_out, save_graph
from grip_edge.export.passes.plan import precision_passes
from grip_edge.export.passes.rescale_channels import RescaleChannels, Rescaling
from grip_edge.manifest import FileRecord, WeightFormats


@dataclass(frozen=True)
class Choices:
    """By file name: formats of single matrices, and the rescalings."""

    formats: WeightFormats
    kept: Mapping[str, Mapping[str, str]]
    rescalings: Mapping[str, Sequence[Rescaling]]

    @property
    def kept_formats(self) -> set[str]:
        return {scheme for matrices in self.kept.values() for scheme in matrices.values()}


def write_candidate(source: Bundle, choices: Choices, folder: Path) -> list[FileRecord]:
    """The four graphs and their data in ``folder``; what is there already and would be the same is kept."""
    journal = Journal(folder)
    files = []
    for name in GRAPH_NAMES:
        model = float_model(source, name)
        RescaleChannels(choices.rescalings.get(name, ()))(model)
        for rewrite in precision_passes(model, name, choices.formats, choices.kept.get(name)):
            rewrite(model)
        layout = lay_out(model, name)
        save_graph(layout, folder)
        files.append(record_file(folder, folder / name))
        files.append(write_weights(layout, folder, journal, lambda place: None))
    return files
