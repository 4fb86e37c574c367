"""A plan for people: what the bundle and its export take, what a request costs, and what each device makes of it."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table

from grip_edge.planning.forecast import BudgetForecast, DeviceForecast
from grip_edge.planning.plan import Plan

_FITS = {True: "yes", False: "NO", None: "?"}


def plan_tables(plan: Plan) -> Iterator[RenderableType]:
    """Tables and lines, in the order in which they are to be read."""
    model = plan.model
    tiles = "" if model.tiles == 1 else f" in up to {model.tiles} tiles"
    yield (
        f"{model.name}: {plan.parameters / 1e9:.2f} B parameters, {model.visual_tokens} visual tokens{tiles}; "
        f"{plan.precision}. A forecast from the configuration: nothing was downloaded or run."
    )
    yield _bundle(plan)
    needs = plan.export
    yield (
        f"Export: about {_gb(needs.ram_bytes)} GB of memory and {_gb(needs.disk_bytes)} GB of disk, beside the "
        f"checkpoint's {_gb(needs.checkpoint_bytes)} GB (in 16 bits)."
    )
    yield _costs(plan)
    for device in plan.devices:
        yield from _device(plan, device)


def _bundle(plan: Plan) -> Table:
    parts = plan.bundle
    table = Table(title="Bundle", title_justify="left")
    for name in ("vision", "projector", "scorer", "embedding", "decoder", "lm head", "graphs, tokenizer", "total"):
        table.add_column(f"{name} MB", justify="right")
    small = parts.graphs + parts.tokenizer
    numbers = (parts.vision, parts.projector, parts.scorer, parts.embedding, parts.decoder, parts.lm_head, small)
    table.add_row(*(f"{number / 1e6:.1f}" for number in (*numbers, plan.bundle_total_bytes)))
    return table


def _costs(plan: Plan) -> Table:
    work = plan.work
    title = f"Per request: {work.prompt_tokens} tokens of text, {work.new_tokens} new ones (GFLOP, MB read)"
    table = Table("kept tokens", title=title, title_justify="left")
    stages = list(plan.costs[0].stages)
    for stage in stages:
        table.add_column("decode, a token" if stage == "decode" else stage, justify="right")
    for row in plan.costs:
        cells = (f"{row.stages[stage].flops / 1e9:.1f}, {row.stages[stage].bytes / 1e6:.0f}" for stage in stages)
        table.add_row(f"{row.kept_tokens}/{plan.model.visual_tokens}", *cells)
    return table


def _device(plan: Plan, device: DeviceForecast) -> Iterator[RenderableType]:
    usable = "unknown" if device.usable_bytes is None else f"{_gb(device.usable_bytes)} GB"
    times = Table(title=f"{device.title}: usable memory {usable}", title_justify="left")
    names = ("kept", "vision ms", "select ms", "prefill ms", "TTFT ms", "tokens/s", "total ms")
    memory = ("weights GB", "KV MB", "activ. MB", "runtime MB", "memory GB", "fits")
    for name in (*names, *memory):
        times.add_column(name, justify="right")
    for row in device.rows:
        times.add_row(*_cells(plan, row))
    yield times
    yield f"Rates: {device.basis}. Source: {device.source}."
    pruning = device.pruning
    ttft, answer = f"{100 * pruning.saved_ttft_share:.0f} %", f"{100 * pruning.saved_total_share:.0f} %"
    yield (
        f"Pruning can save at most {ttft} of TTFT (vision, text and reading the decoder leave "
        f"{pruning.least_ttft_ms:.0f} ms), {answer} of the whole answer and "
        f"{pruning.saved_kv_cache_bytes / 1e6:.0f} MB of cache."
    )
    refusing = [target for target, takes_it in device.targets.items() if not takes_it]
    if refusing:
        others = " and ".join(target for target in device.targets if target not in refusing) or "no target of it"
        yield f"{plan.precision} is for {others}; {' and '.join(refusing)} cannot run it. See --target of export."
    if any(row.fits is False for row in device.rows):
        smallest = min(row.kept_tokens for row in device.rows)
        fitting = ", ".join(device.fitting_precisions) or "none; choose a smaller model or a larger device"
        yield f"Does not fit everywhere. At {smallest} kept tokens these precisions do: {fitting}."


def _cells(plan: Plan, row: BudgetForecast) -> Iterator[str]:
    memory = row.memory
    yield f"{row.kept_tokens}/{plan.model.visual_tokens}"
    yield from (f"{ms:.1f}" for ms in (row.vision_ms, row.select_ms, row.prefill_ms, row.ttft_ms))
    yield f"{row.decode_tokens_per_sec:.1f}"
    yield f"{row.total_ms:.0f}"
    yield _gb(memory.weights)
    yield from (f"{number / 1e6:.0f}" for number in (memory.kv_cache, memory.activations, memory.runtime))
    yield _gb(memory.total)
    yield _FITS[row.fits]


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f}"
