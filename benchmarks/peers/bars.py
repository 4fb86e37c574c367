"""The aims, each with what was measured and whether it held.

Peers that read text only set no aim for a whole request, since their time lacks the vision stage; for decoding and for
memory of their weights they do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.peers.contestants import Work
from benchmarks.peers.summary import Row

OURS = "grip-edge"
HELD, MISSED, UNKNOWN = "held", "missed", "not measured"
_RSS_OVER_BUNDLE = 1.25


@dataclass(frozen=True)
class Bar:
    title: str
    aim: str
    measured: str
    verdict: str


Best = tuple[float, str] | None


def make_bars(work: Work, rows: Sequence[Row]) -> list[Bar]:
    full, pruned = work.budgets
    ours = [row for row in rows if row.peer == OURS]
    seeing = [row for row in rows if row.peer != OURS and row.contestant.sees]
    ttft = _best(seeing, lambda row: _ttft(row, full), min)
    by_hand = [row for row in seeing if row.contestant.worker == "openvino_embeds"]
    best_full, best_pruned = (
        _best(ours, lambda row: _ttft(row, full), min),
        _best(ours, lambda row: _ttft(row, pruned), min),
    )
    bars = [
        _ratio(f"TTFT at {full} tokens, over the best peer's", best_full, ttft, 0.7),
        _ratio(f"TTFT at {full} tokens, the goal", best_full, ttft, 0.6),
        _ratio(f"TTFT at {pruned} tokens, over the best peer's at {full}", best_pruned, ttft, 0.3),
        _ratio(
            f"TTFT at {pruned} tokens, over OpenVINO's with {pruned} tokens given by hand",
            best_pruned,
            _best(by_hand, lambda row: _ttft(row, pruned), min),
            0.75,
        ),
    ]
    bars += [_decode(rows, bits, full) for bits in (8, 4)]
    our_vision, their_vision = (_best(group, lambda row: _median(row.vision_ms), min) for group in (ours, seeing))
    bars.append(_ratio("Vision stage, over the best peer's", our_vision, their_vision, 1.0))
    bars += [_memory(rows, bits) for bits in (8, 4)]
    bars += _limits(ours)
    bars += _own(work, ours)
    return bars


def _ttft(row: Row, kept: int) -> float | None:
    return _median(row.ttft_ms.get(kept))


def _median(summary: object) -> float | None:
    return getattr(summary, "median", None)


def _best(rows: Sequence[Row], value: Callable[[Row], float | None], choose: Callable[..., tuple[float, str]]) -> Best:
    """The best value and whose it is."""
    known = [(found, row.name) for row in rows if (found := value(row)) is not None]
    return choose(known) if known else None


def _ratio(title: str, ours: Best, theirs: Best, limit: float, unit: str = "ms", scale: float = 1.0) -> Bar:
    """Held where ours is at most ``limit`` times theirs."""
    aim = f"at most {limit:g}"
    if ours is None or theirs is None:
        return Bar(title, aim, "", UNKNOWN)
    ratio = ours[0] / theirs[0]
    values = f"{ratio:.2f} ({ours[1]} {ours[0] / scale:.0f} {unit}, {theirs[1]} {theirs[0] / scale:.0f} {unit})"
    return Bar(title, aim, values, HELD if ratio <= limit else MISSED)


def _same_bits(rows: Sequence[Row], bits: int) -> tuple[list[Row], list[Row]]:
    same = [row for row in rows if row.contestant.bits == bits]
    return [row for row in same if row.peer == OURS], [row for row in same if row.peer != OURS]


def _decode(rows: Sequence[Row], bits: int, kept: int) -> Bar:
    title, aim = f"Decode at {bits} bits, over the best peer's", "at least 1"
    sides = _same_bits(rows, bits)
    ours, theirs = (_best(side, lambda row: _median(row.decode_tokens_per_sec.get(kept)), max) for side in sides)
    if ours is None or theirs is None:
        return Bar(title, aim, "", UNKNOWN)
    ratio = ours[0] / theirs[0]
    measured = f"{ratio:.2f} ({ours[1]} {ours[0]:.1f} tokens/s, {theirs[1]} {theirs[0]:.1f})"
    return Bar(title, aim, measured, HELD if ratio >= 1 else MISSED)


def _memory(rows: Sequence[Row], bits: int) -> Bar:
    ours, theirs = (_best(side, lambda row: _median(row.peak_rss_bytes), min) for side in _same_bits(rows, bits))
    return _ratio(f"Peak RSS at {bits} bits, over the best peer's", ours, theirs, 1.0, "MiB", 2**20)


def _limits(ours: Sequence[Row]) -> list[Bar]:
    bars = []
    for title, limit, best in (
        ("Prefill's linear layers over the measured int8 peak", 0.6, _best(ours, lambda row: row.linear_share, max)),
        (
            "The whole prefill over the measured int8 peak",
            0.6,
            _best(ours, lambda row: _median(row.prefill_share), max),
        ),
        ("Decode over read bandwidth / weight bytes", 0.75, _best(ours, lambda row: _median(row.decode_share), max)),
    ):
        measured = "" if best is None else f"{best[0]:.2f} ({best[1]})"
        verdict = UNKNOWN if best is None else HELD if best[0] >= limit else MISSED
        bars.append(Bar(title, f"at least {limit:g}", measured, verdict))
    return bars


def _own(work: Work, ours: Sequence[Row]) -> list[Bar]:
    """What needs no peer, one line for each precision."""
    bars = []
    for row in ours:
        for title, summary, limit in (
            ("overhead outside ONNX Runtime per request", row.overhead_request_ms, 1.0),
            ("overhead outside ONNX Runtime per token", row.overhead_token_ms, 0.03),
        ):
            found = _median(summary)
            measured = "" if found is None else f"{found:.3f} ms"
            bars.append(Bar(f"{row.name}: {title}", f"at most {limit:g} ms", measured, _at_most(found, limit)))
        bundle_bytes = sum(file.stat().st_size for file in row.contestant.folder.iterdir())
        for moment, summary in (("RSS once loaded", row.loaded_rss_bytes), ("peak RSS", row.peak_rss_bytes)):
            rss = _median(summary)
            ratio = None if rss is None else rss / bundle_bytes
            measured = "" if ratio is None else f"{ratio:.2f}"
            title = f"{row.name}: {moment} over the bundle's size"
            bars.append(Bar(title, f"at most {_RSS_OVER_BUNDLE}", measured, _at_most(ratio, _RSS_OVER_BUNDLE)))
        flops = _median(row.flops_ratio)
        title = f"{row.name}: TTFT at {work.budgets[1]} tokens over what operations predict"
        bars.append(Bar(title, "at most 1.1", "" if flops is None else f"{flops:.2f}", _at_most(flops, 1.1)))
    return bars


def _at_most(found: float | None, limit: float) -> str:
    return UNKNOWN if found is None else HELD if found <= limit else MISSED
