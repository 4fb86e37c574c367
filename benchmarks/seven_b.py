"""A checkpoint of LLaVA-1.5-7B's shape from export to answer, beside what ``grip-edge plan`` forecasts.

    python benchmarks/big_checkpoint.py --out /tmp/llava-1.5-7b-shape
    python benchmarks/seven_b.py /tmp/llava-1.5-7b-shape /tmp/work
    python benchmarks/seven_b.py /tmp/llava-1.5-7b-shape /tmp/work --steps answer,plan

    export   each precision in a process of its own: wall time, CPU time, peak RSS (rusage of the finished process)
    answer   ONNX Runtime on this CPU in a process of its own: TTFT by stage, decode rate, peak RSS
    plan     the forecast, this machine's CPU measured in place

Each result is kept in the work folder, so a later run repeats only what is asked for with --steps; an export that was
interrupted goes on, and its times add up. Bundles are left there: 14 GB in fp16, 5 GB in int4.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from PIL import Image

from grip_edge.bundle import TOKENIZER_NAME, open_bundle
from grip_edge.export.precision import PRECISIONS, PrecisionOptions, session_config
from grip_edge.planning.find_config import find_shape
from grip_edge.planning.forecast import Workload
from grip_edge.planning.plan import Plan, PlanRequest, Precision, make_plan
from grip_edge.runtime.pipeline import Pipeline
from grip_edge.runtime.prompt import PromptEncoder, load_tokenizer
from grip_edge.runtime.result import Result

STEPS = ("export", "answer", "plan")
BUDGET_RANGE = "0.1,0.5"
QUESTION = "What is in the picture?"
_STAGES = ("vision", "select", "prefill", "ttft")


@dataclass(frozen=True)
class Run:
    checkpoint: Path
    work: Path
    budgets: tuple[str, ...]
    new_tokens: int
    repeats: int

    def bundle(self, precision: str) -> Path:
        return self.work / precision

    def record(self, step: str, precision: str) -> Path:
        return self.work / f"{step}-{precision}.json"


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--steps", default=",".join(STEPS), show_default=True)
@click.option("--precision", "precisions", type=click.Choice(PRECISIONS), multiple=True, default=("fp16", "int4"))
@click.option("--answer-with", type=click.Choice(PRECISIONS), default="int4", show_default=True)
@click.option("--budgets", default="0.1,1.0", show_default=True)
@click.option("--new-tokens", default=16, show_default=True)
@click.option("--repeats", default=1, show_default=True, help="After one warm-up per budget.")
def main(
    checkpoint: Path,
    work: Path,
    steps: str,
    precisions: tuple[str, ...],
    answer_with: str,
    budgets: str,
    new_tokens: int,
    repeats: int,
) -> None:
    """Measure CHECKPOINT in the folder WORK."""
    work.mkdir(parents=True, exist_ok=True)
    run = Run(checkpoint, work, tuple(budgets.split(",")), new_tokens, repeats)
    wanted = steps.split(",")
    if "export" in wanted:
        for precision in precisions:
            _export(run, precision)
    if "answer" in wanted:
        _in_child(lambda: _answer(run, answer_with))
    if "plan" in wanted:
        _in_child(lambda: run.record("plan", answer_with).write_text(_forecast(run, answer_with).to_json()))
    _print_exports(run)
    _print_answer(run, answer_with)


def _export(run: Run, precision: str) -> None:
    record = run.record("export", precision)
    arguments = ["grip-edge", "export", "--model", str(run.checkpoint), "--precision", precision]
    arguments += ["--budget-range", BUDGET_RANGE, "--out", str(run.bundle(precision))]
    before = json.loads(record.read_text()) if record.is_file() and not run.bundle(precision).exists() else {}
    started = time.perf_counter()
    child = os.spawnvp(os.P_NOWAIT, arguments[0], arguments)
    _, status, usage = os.wait4(child, 0)
    found = {
        "wall_s": time.perf_counter() - started + before.get("wall_s", 0.0),
        "cpu_s": usage.ru_utime + usage.ru_stime + before.get("cpu_s", 0.0),
        "peak_rss_bytes": max(1024 * usage.ru_maxrss, before.get("peak_rss_bytes", 0)),
    }
    record.write_text(json.dumps(found))
    if status:
        raise click.ClickException(f"the export to {precision} did not finish; the same command goes on with it")


def _in_child(work: Callable[[], object]) -> None:
    """A process of its own, so that one step's memory is not another's."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status:
        raise click.ClickException("a step failed")


def _answer(run: Run, precision: str) -> None:
    """One warm-up per budget, then medians; budgets alternate, nothing is cached."""
    started = time.perf_counter()
    pipeline = Pipeline.load(run.bundle(precision), cached_images=0)
    found: dict[str, Any] = {"load_s": time.perf_counter() - started, "rows": []}
    results: dict[str, list[Result]] = {budget: [] for budget in run.budgets}
    for _ in range(1 + run.repeats):
        for budget, done in results.items():
            done.append(pipeline.generate(_picture(), QUESTION, budget, run.new_tokens, ignore_stop=True))
            print(f"budget {budget}: {done[-1].timings.ttft_ms:.0f} ms to the first token", file=sys.stderr)
    for budget, done in results.items():
        times = [result.to_dict()["timings_ms"] for result in done[1:]]
        row: dict[str, Any] = {f"{stage}_ms": median(time[stage] for time in times) for stage in _STAGES}
        row["decode_tokens_per_sec"] = median(result.decode_tokens_per_sec or 0.0 for result in done[1:])
        found["rows"].append(row | {"budget": budget, "kept_tokens": done[0].budget.kept_tokens})
    found["visual_tokens"] = pipeline.manifest.budget_range.visual_tokens
    found["peak_rss_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run.record("answer", precision).write_text(json.dumps(found))


def _picture() -> Image.Image:
    across, down = np.meshgrid(np.linspace(0, 255, 640), np.linspace(0, 255, 480))
    return Image.fromarray(np.stack([across, down, 255 - across], axis=-1).astype(np.uint8))


def _forecast(run: Run, precision: str) -> Plan:
    """For as many tokens of text as the benchmark's question makes."""
    formats = PrecisionOptions(precision).formats
    manifest = open_bundle(run.bundle(precision)).manifest
    text = _text_tokens(run.bundle(precision))
    model, _ = find_shape(str(run.checkpoint))
    kept = tuple(str(manifest.budget_range.resolve(budget)) for budget in run.budgets)
    request = PlanRequest(
        model=str(run.checkpoint),
        precision=Precision(precision, formats, session_config(formats)),
        devices=("cpu",),
        budget_range=None,
        budgets=tuple(count for count in kept if int(count) < model.visual_tokens),
        work=Workload(text, run.new_tokens),
        others={},
        target_precisions={},
    )
    return make_plan(request)


def _text_tokens(bundle: Path) -> int:
    manifest = open_bundle(bundle).manifest
    prompt = PromptEncoder(load_tokenizer(bundle / TOKENIZER_NAME), manifest.prompt).encode(QUESTION)
    return len(prompt.before) + len(prompt.after)


def _print_exports(run: Run) -> None:
    print("| precision | bundle GB | forecast GB | export wall s | CPU s | peak RSS GB | forecast GB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    source = sum(file.stat().st_size for file in run.checkpoint.glob("*.safetensors"))
    for precision in PRECISIONS:
        record = run.record("export", precision)
        if record.is_file() and run.bundle(precision).is_dir():
            found = json.loads(record.read_text())
            plan = _bundle_forecast(run, precision)
            written = sum(file.stat().st_size for file in run.bundle(precision).iterdir())
            print(
                f"| {precision} | {written / 1e9:.2f} | {plan[0] / 1e9:.2f} | {found['wall_s']:.0f} | "
                f"{found['cpu_s']:.0f} | {found['peak_rss_bytes'] / 1e9:.2f} | {plan[1] / 1e9:.2f} |"
            )
    print(f"\nSource: {source / 1e9:.2f} GB in {run.checkpoint.name}.\n")


def _bundle_forecast(run: Run, precision: str) -> tuple[int, int]:
    """Bytes of the bundle and of the export's memory, without measuring this machine."""
    from grip_edge.planning.bundle_size import bundle_bytes
    from grip_edge.planning.memory import export_needs

    model, tokenizer_bytes = find_shape(str(run.checkpoint))
    bundle = bundle_bytes(model, PrecisionOptions(precision).formats, tokenizer_bytes)
    return bundle.total, export_needs(model, bundle).ram_bytes


def _print_answer(run: Run, precision: str) -> None:
    if not run.record("answer", precision).is_file():
        return
    found = json.loads(run.record("answer", precision).read_text())
    forecast = _forecast_rows(run.record("plan", precision))
    print(f"{precision}, {os.cpu_count()} cores; measured (forecast)\n")
    print("| budget | kept | vision ms | select ms | prefill ms | TTFT ms | decode tokens/s |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in found["rows"]:
        print(_answer_row(row, found["visual_tokens"], forecast.get(row["kept_tokens"])))
    weights = sum(file.stat().st_size for file in run.bundle(precision).glob("*.data"))
    peak = found["peak_rss_bytes"]
    expected = f"; forecast {max(row['memory_bytes'] for row in forecast.values()) / 1e9:.2f} GB" if forecast else ""
    share = f", {peak / weights:.2f} times the weights on disk" if weights else ""  # the bundle may be gone since
    print(f"\nLoaded in {found['load_s']:.1f} s; peak RSS {peak / 1e9:.2f} GB{share}{expected}.")


def _forecast_rows(record: Path) -> dict[int, dict[str, float]]:
    if not record.is_file():
        return {}
    rows = json.loads(record.read_text())["devices"][0]["rows"]
    return {row["kept_tokens"]: row | {"memory_bytes": sum(row["memory"].values())} for row in rows}


def _answer_row(row: dict[str, Any], visual_tokens: int, forecast: dict[str, float] | None) -> str:
    cells = [row["budget"], f"{row['kept_tokens']}/{visual_tokens}"]
    for name, digits in (*((f"{stage}_ms", 0) for stage in _STAGES), ("decode_tokens_per_sec", 2)):
        expected = "" if forecast is None else f" ({forecast[name]:.{digits}f})"
        cells.append(f"{row[name]:.{digits}f}{expected}")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
