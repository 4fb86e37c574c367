"""The report in words: which budget to use, what pruning can save here at most, and what makes the numbers doubtful.

Only measured quantities are used. The most that pruning can save is the unpruned model's whole prefill, since opening
the image, the tower and the selection come at any budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from grip_edge.report import BudgetRow, LatencyReport
from grip_edge.reporting.disturbance import other_load

# Above these shares a sentence says so.
_PREPROCESS_SHARE = 0.3


def verdict(report: LatencyReport) -> tuple[str, ...]:
    """One sentence or two per line; rows of the lowest concurrency are spoken of."""
    lowest = min(row.concurrency for row in report.rows)
    rows = sorted((row for row in report.rows if row.concurrency == lowest), key=lambda row: row.kept_tokens)
    return (_choice(rows, report.target_ttft_ms), *_savings(rows), *_doubts(report, rows))


def meeting(rows: Sequence[BudgetRow], target_ttft_ms: float) -> BudgetRow | None:
    """The largest budget whose 90th percentile of TTFT is within the target."""
    within = [row for row in rows if row.times_ms["ttft"].p90 <= target_ttft_ms]
    return max(within, key=lambda row: row.kept_tokens, default=None)


def _choice(rows: Sequence[BudgetRow], target_ttft_ms: float | None) -> str:
    smallest, largest = rows[0], rows[-1]
    if target_ttft_ms is None:
        if smallest is largest:
            return f"Budget {_name(smallest)}: first token after {_ttft(smallest)} ms (median){_worth(smallest)}."
        return (
            f"First token after {_ttft(smallest)} ms (median) at budget {_name(smallest)}{_worth(smallest)}; "
            f"{_ttft(largest)} ms at {_name(largest)}{_worth(largest)}."
        )
    chosen = meeting(rows, target_ttft_ms)
    if chosen is None:
        ttft = smallest.times_ms["ttft"]
        return (
            f"No measured budget holds TTFT <= {target_ttft_ms:g} ms on this machine: the smallest, {_name(smallest)}, "
            f"takes {ttft.p90:.1f} ms (p90 of {ttft.n}), {_fixed_ms(smallest):.1f} ms of it before the language model."
        )
    ttft = chosen.times_ms["ttft"]
    return (
        f"For TTFT <= {target_ttft_ms:g} ms on this machine use budget {_name(chosen)}: "
        f"{ttft.p90:.1f} ms (p90 of {ttft.n}){_worth(chosen)}."
    )


def _savings(rows: Sequence[BudgetRow]) -> Iterator[str]:
    whole = rows[-1]
    if whole.kept_tokens != whole.visual_tokens:
        return
    times = whole.times_ms
    yield (
        f"Pruning can save at most {times['prefill'].p50:.1f} of {times['ttft'].p50:.1f} ms to the first token here "
        f"(the prefill of all {whole.visual_tokens} tokens), because vision takes {times['vision'].p50:.1f} ms, "
        f"preprocessing {times['preprocess'].p50:.1f} ms and selection {times['select'].p50:.1f} ms at any budget."
    )


def _doubts(report: LatencyReport, rows: Sequence[BudgetRow]) -> Iterator[str]:
    smallest, state = rows[0].times_ms, report.state_before
    share = smallest["preprocess"].p50 / smallest["ttft"].p50
    if share > _PREPROCESS_SHARE:
        yield (
            f"Preprocessing is {share:.0%} of TTFT at budget {rows[0].budget}: a smaller image file helps more than a "
            "smaller budget."
        )
    load = other_load(report)
    if load is not None:
        yield f"Other programs ran: {load}; measure again on a quiet machine."
    throttling = {reason for one in (state, report.state_after) if one for reason in one.throttling or ()}
    if throttling:
        yield f"The GPU ran below its clock ({', '.join(sorted(throttling))})."


def _name(row: BudgetRow) -> str:
    return f"{row.budget} ({row.kept_tokens} of {row.visual_tokens} tokens)"


def _ttft(row: BudgetRow) -> str:
    return f"{row.times_ms['ttft'].p50:.1f}"


def _fixed_ms(row: BudgetRow) -> float:
    return sum(row.times_ms[stage].p50 for stage in ("preprocess", "vision", "select"))


def _worth(row: BudgetRow) -> str:
    """Accuracy and energy, as far as they are known."""
    words = ""
    if row.accuracy is not None:
        share, half = 100 * row.accuracy.share, 50 * (row.accuracy.high - row.accuracy.low)
        words += f", accuracy {share:.1f} % (±{half:.1f})"
    if row.energy is not None:
        words += f", {row.energy.joules_per_answer:.2f} J per answer"
    return words
