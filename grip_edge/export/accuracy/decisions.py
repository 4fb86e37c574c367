"""What the observations of a float model lead to: which layers would stay in more bits first, which are rescaled.

A layer whose values do not fit fp16 stays in fp32 where fp16 is asked for; with other formats it is only named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from grip_edge.bundle import Bundle
from grip_edge.calibration_record import KeptLayer, RescaledLayer, WideLayer
from grip_edge.export.accuracy.candidate import Choices
from grip_edge.export.accuracy.float_bundle import float_model
from grip_edge.export.accuracy.forward import ForwardPass
from grip_edge.export.accuracy.groups import find_groups
from grip_edge.export.accuracy.observe import GraphObserver, GroupFinding, LayerRange
from grip_edge.export.accuracy.options import CalibrationOptions
from grip_edge.export.accuracy.questions import QuestionSet
from grip_edge.export.accuracy.rounding import Rounding
from grip_edge.export.passes.plan import matrix_schemes
from grip_edge.export.passes.rescale_channels import Rescaling
from grip_edge.export.targets.formats import formats_for_heads
from grip_edge.export.targets.lowering import LayerChoices
from grip_edge.export.targets.table import Target
from grip_edge.manifest import WeightFormats

_OBSERVED = ("vision.onnx", "select.onnx", "decoder.onnx")

# By file name, then by matrix.
_Schemes = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Decisions:
    """``ranking``: the groups that are quantised, with their graph, largest error first. ``too_wide``: the matrices
    that stay in fp32 because of their layer's values. ``schemes``: the format of every matrix before anything is kept.
    """

    formats: WeightFormats
    ranking: tuple[tuple[str, GroupFinding], ...]
    wide: tuple[WideLayer, ...]
    too_wide: _Schemes
    schemes: _Schemes
    target: Target
    finer: Mapping[str, str]

    def choices(self, count: int) -> Choices:
        """With the first ``count`` of the ranking kept."""
        kept = {graph: dict(matrices) for graph, matrices in self.too_wide.items()}
        for layer in self._kept_for_error(count):
            kept.setdefault(layer.graph, {}).update(dict.fromkeys(layer.matrices, layer.format))
        rescalings: dict[str, list[Rescaling]] = {}
        largest_inputs: dict[str, dict[str, float]] = {}
        for graph, finding in self.ranking[count:]:
            largest_inputs.setdefault(graph, {}).update(dict.fromkeys(finding.group.matrices, finding.largest_input))
            if finding.factors is not None:
                group = finding.group
                one = Rescaling(group.matrices, group.source, group.source_axis, finding.factors)
                rescalings.setdefault(graph, []).append(one)
        layers = {
            graph: LayerChoices(kept.get(graph, {}), largest_inputs.get(graph, {}))
            for graph in (*kept, *largest_inputs)
        }
        return Choices(self.formats, layers, rescalings, self.target)

    def kept_layers(self, count: int) -> tuple[KeptLayer, ...]:
        wide = (
            KeptLayer(graph, tuple(matrices), "fp32", "beyond fp16", None)
            for graph, matrices in self.too_wide.items()
            if matrices
        )
        return (*self._kept_for_error(count), *wide)

    def rescaled_layers(self, count: int) -> tuple[RescaledLayer, ...]:
        return tuple(
            RescaledLayer(graph, finding.group.matrices, finding.exponents, finding.plain_error, finding.error)
            for graph, finding in self.ranking[count:]
            if finding.exponents is not None
        )

    def _kept_for_error(self, count: int) -> tuple[KeptLayer, ...]:
        return tuple(
            KeptLayer(
                graph, one.group.matrices, self.finer[self.schemes[graph][one.group.matrices[0]]], "error", one.error
            )
            for graph, one in self.ranking[:count]
        )


def observe(source: Bundle, options: CalibrationOptions, seen: QuestionSet) -> Decisions:
    """Runs the float model once over all questions."""
    target, head_dim = options.found_target, source.manifest.model.text.head_dim
    formats = formats_for_heads(options.formats, options.precision, head_dim)
    exact = ("fp32", "fp16") if target.half_compute else ("fp32",)
    observers: dict[str, GraphObserver] = {}
    schemes: _Schemes = {}
    for name in _OBSERVED:
        model = float_model(source, name)
        schemes[name] = matrix_schemes(model, name, formats)
        rounding = {
            matrix: Rounding.of(scheme, formats, target.has_fixed_scales(name))
            for matrix, scheme in schemes[name].items()
        }
        groups = find_groups(model, [matrix for matrix, scheme in schemes[name].items() if scheme not in exact])
        observers[name] = GraphObserver(model, groups, rounding, len(seen.prompts), options.rescale)
    manifest = source.manifest
    ForwardPass(source.folder, manifest.model.text, manifest.session_config, observers).logits(seen)
    wide = tuple(
        _wide(name, one) for name, observer in observers.items() for one in observer.ranges if not one.fits_fp16
    )
    # Where arithmetic is in one float type, no layer can have another; the comparison tells what that does.
    too_wide = {name: {} for name in schemes} if target.half_compute else _too_wide(wide, schemes)
    found = [
        (name, finding)
        for name, observer in observers.items()
        for finding in observer.findings
        if not too_wide[name].keys() & set(finding.group.matrices)
    ]
    ranking = tuple(sorted(found, key=lambda pair: -pair[1].error))
    return Decisions(formats, ranking, wide, too_wide, schemes, target, options.finer)


def _wide(graph: str, found: LayerRange) -> WideLayer:
    return WideLayer(graph, found.layer, found.largest if math.isfinite(found.largest) else None)


def _too_wide(wide: tuple[WideLayer, ...], schemes: _Schemes) -> _Schemes:
    """The matrices in fp16 whose layer has values beyond it."""
    layers = {name: tuple(f"{one.layer}." for one in wide if one.graph == name) for name in schemes}
    return {
        name: {
            matrix: "fp32"
            for matrix, scheme in of_graph.items()
            if scheme == "fp16" and matrix.startswith(layers[name])
        }
        for name, of_graph in schemes.items()
    }
