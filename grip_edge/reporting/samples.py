"""Raw samples as JSON lines: one request per line, with the budget and concurrency of its row."""

from __future__ import annotations

import dataclasses
import json

from grip_edge.report import LatencyReport


def to_jsonl(report: LatencyReport) -> str:
    lines = []
    for row in report.rows:
        for sample in row.samples:
            asked = dataclasses.asdict(report.workload.inputs[sample.asked])
            head = {"budget": row.budget, "concurrency": row.concurrency, **asked}
            lines.append(json.dumps({**head, **dataclasses.asdict(sample)}, ensure_ascii=False))
    return "\n".join(lines) + "\n"
