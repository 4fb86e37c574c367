"""A quantised bundle's graphs, written from a bundle in floats with given layers kept in more bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from grip_edge.bundle import GRAPH_NAMES, Bundle, record_file
from grip_edge.export.accuracy.float_bundle import float_model
from grip_edge.export.fill import write_weights
from grip_edge.export.journal import Journal
from grip_edge.export.layout import lay_out, save_graph
from grip_edge.export.passes.rescale_channels import RescaleChannels, Rescaling
from grip_edge.export.targets.lowering import LayerChoices, lower
from grip_edge.export.targets.next_embeds import embed_next_token
from grip_edge.export.targets.table import CPU, Target
from grip_edge.manifest import FileRecord, WeightFormats


@dataclass(frozen=True)
class Choices:
    """By file name: what single layers get, and the rescalings."""

    formats: WeightFormats
    layers: Mapping[str, LayerChoices]
    rescalings: Mapping[str, Sequence[Rescaling]]
    target: Target = CPU

    @property
    def has_fixed_scales(self) -> bool:
        in_int8 = "int8" in (self.formats.vision, self.formats.decoder, self.formats.lm_head)
        return in_int8 and self.target.has_fixed_scales("decoder.onnx")

    @property
    def kept_formats(self) -> set[str]:
        return {scheme for layers in self.layers.values() for scheme in layers.kept.values()}


def write_candidate(source: Bundle, choices: Choices, folder: Path) -> list[FileRecord]:
    """The four graphs and their data in ``folder``; what is there already and would be the same is kept."""
    journal = Journal(folder)
    files = []
    models: dict[str, ir.Model] = {}
    for name in GRAPH_NAMES:
        model = models[name] = float_model(source, name)
        RescaleChannels(choices.rescalings.get(name, ()))(model)
        lower(model, name, choices.target, choices.formats, choices.layers.get(name, LayerChoices()))
        layout = lay_out(model, name)
        if name == "decoder.onnx" and choices.target.embeds_next:
            embed_next_token(model, models["embed.onnx"])
        save_graph(layout, folder)
        files.append(record_file(folder, folder / name))
        files.append(write_weights(layout, folder, journal, lambda place: None))
    return files
