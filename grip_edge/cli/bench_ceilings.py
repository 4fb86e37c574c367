"""The ceilings of a bench: this CPU's rates are measured in place, and each row's stages held against them."""

from __future__ import annotations

from dataclasses import replace

from grip_edge.bundle import TOKENIZER_NAME, Bundle
from grip_edge.errors import UserError
from grip_edge.planning.cpu_speed import measured_speed
from grip_edge.report import LatencyReport
from grip_edge.reporting.ceilings import row_ceilings, schemes
from grip_edge.runtime.prompt import PromptEncoder, load_tokenizer


def with_ceilings(report: LatencyReport, bundle: Bundle) -> LatencyReport:
    manifest, formats = bundle.manifest, bundle.manifest.weight_formats
    if formats is None:
        raise UserError(f"{bundle.folder} does not say how its weights are stored; export it again, or  --no-ceiling.")
    if manifest.image.tiling is not None:
        raise UserError("Ceilings are for models that see one view of an image; leave out --ceiling.")
    encoder = PromptEncoder(load_tokenizer(bundle.path(TOKENIZER_NAME)), manifest.prompt)
    prompt = encoder.encode(report.workload.inputs[0].question)
    text_tokens, new_tokens = len(prompt.before) + len(prompt.after), report.workload.new_tokens
    speed = measured_speed(formats, schemes(formats), manifest.session_config, report.machine.threads)
    rows = tuple(
        replace(row, ceilings=row_ceilings(row, manifest, formats, text_tokens, new_tokens, speed))
        if row.concurrency == 1
        else row
        for row in report.rows
    )
    return replace(report, rows=rows, ceiling_basis=f"rates {speed.basis}")
