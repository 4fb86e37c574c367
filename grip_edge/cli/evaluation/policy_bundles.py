"""The bundle of every policy that can have one: as given, or exported now. Latency and FLOPs are those of bundles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from grip_edge.bundle import MANIFEST_NAME, Bundle, open_bundle
from grip_edge.calibration.evaluation.cases import UNPRUNED
from grip_edge.cli.evaluation.bundles import bundle_label
from grip_edge.cli.evaluation.request import EvaluationRequest
from grip_edge.cli.evaluation.sides import Sides
from grip_edge.policy_catalog import POLICY_SPECS

_CHEAPEST = "uniform"  # its selection costs next to nothing, so that it may stand for the unpruned model


def policy_bundles(
    request: EvaluationRequest, sides: Sides, folder: Path, on_export: Callable[[str], None]
) -> dict[str, Bundle]:
    """By the name of who takes part; the unpruned model is measured through the first one.

    A learned policy is exported with the scorer of its first training run. Bundles that are in ``folder`` already, from
    a run that was interrupted, are taken as they are.
    """
    policies = {one.name: one.runs for one in sides.participants if one.name != UNPRUNED and one.bundle is None}
    found = {name if name in policies else bundle_label(name): bundle for name, bundle in sides.bundles.items()}
    for name, runs in policies.items():
        exportable = bool(runs) or POLICY_SPECS[name].exportable
        if name not in found and exportable and request.model is not None:
            on_export(name)
            found[name] = _exported(request.model, name, runs, sides, folder / name)
    return dict(sorted(found.items(), key=lambda item: item[0] != _CHEAPEST))


def _exported(model: str, name: str, runs: tuple[str, ...], sides: Sides, out: Path) -> Bundle:
    from grip_edge.export.exporter import export_bundle
    from grip_edge.export.options import ExportOptions

    if (out / MANIFEST_NAME).is_file():
        return open_bundle(out)
    kept = sorted({case.kept_tokens for case in sides.cases if case.policy == name})
    out.parent.mkdir(exist_ok=True)
    scorer = Path(runs[0]) if runs else None
    options = ExportOptions(model, f"{kept[0]},{kept[-1]}", scorer, out, policy=None if runs else name)
    return export_bundle(options)
