"""From finished turns to one row per contestant: medians, spread, shares of what the machine can do.

Shares are formed within one turn, with the probe taken just before it, and only then summarised: a machine that others
use too drifts. None is what was not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.peers.contestants import Contestant, Peer, Work
from benchmarks.peers.protocol import Message

REFERENCE = "transformers fp32"


@dataclass(frozen=True)
class Summary:
    """Median, smallest and largest of ``count`` values."""

    median: float
    low: float
    high: float
    count: int

    @staticmethod
    def of(values: Iterable[float | None]) -> Summary | None:
        known = [value for value in values if value is not None]
        return Summary(median(known), min(known), max(known), len(known)) if known else None

    @property
    def spread(self) -> float:
        """From the smallest to the largest, as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


@dataclass(frozen=True)
class Agreement:
    """With the reference: cosines of features and logits about its means, and how many first tokens are the same."""

    features_cosine: float | None
    logits_cosine: float | None
    tokens_equal: int
    tokens_compared: int


@dataclass(frozen=True)
class Row:
    """``ttft_ms`` and ``decode_tokens_per_sec`` by kept tokens. ``failure`` is the reason where nothing was measured.

    ``linear_share`` is that of a prefill's matrix products alone, in a profile of its own. ``flops_ratio`` is the
    pruned TTFT over what operations predict from the full one. Overheads are of a request and of each further token,
    outside of its runtime's sessions.
    """

    contestant: Contestant
    peer: str
    failure: str | None = None
    ttft_ms: dict[int, Summary] = field(default_factory=dict)
    decode_tokens_per_sec: dict[int, Summary] = field(default_factory=dict)
    vision_ms: Summary | None = None
    cold_start_ms: Summary | None = None
    load_s: Summary | None = None
    loaded_rss_bytes: Summary | None = None
    peak_rss_bytes: Summary | None = None
    prefill_share: Summary | None = None
    linear_share: float | None = None
    decode_share: Summary | None = None
    flops_ratio: Summary | None = None
    agreement: Agreement | None = None
    overhead_request_ms: Summary | None = None
    overhead_token_ms: Summary | None = None
    decoder_bytes: int | None = None
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.contestant.name


def make_row(
    work: Work,
    peer: Peer,
    contestant: Contestant,
    turns: Sequence[Message],
    failure: str | None,
    checks: Mapping[str, Message],
) -> Row:
    """``turns`` are those of this contestant. A turn that failed makes the whole row a failure."""
    failure = failure or next((turn["error"] for turn in turns if "error" in turn), None)
    check = checks.get(contestant.name, {})
    reference = checks.get(REFERENCE, {})
    agreement = _agreement(check, reference if contestant.sees else reference.get("text", {}))
    if failure is not None or not turns:
        return Row(contestant, peer.title, failure or "no turn was finished", agreement=agreement)
    full, pruned = work.budgets
    answers = [answer for turn in turns for answer in turn["answers"]]
    budgets = sorted({answer["kept"] for answer in answers}, reverse=True)

    def by_budget(key: str) -> dict[int, Summary]:
        found = {kept: Summary.of(answer[key] for answer in answers if answer["kept"] == kept) for kept in budgets}
        return {kept: summary for kept, summary in found.items() if summary is not None}

    return Row(
        contestant=contestant,
        peer=peer.title,
        ttft_ms=by_budget("ttft_ms"),
        decode_tokens_per_sec=by_budget("decode_tokens_per_sec"),
        vision_ms=Summary.of(answer["vision_ms"] for answer in answers),
        cold_start_ms=Summary.of(turn["cold_start_ms"] for turn in turns),
        load_s=Summary.of(turn["load_s"] for turn in turns),
        loaded_rss_bytes=Summary.of(turn.get("loaded_rss_bytes") for turn in turns),
        peak_rss_bytes=Summary.of(turn["peak_rss_bytes"] for turn in turns),
        prefill_share=_per_answer(turns, full, lambda turn, answer: _prefill_share(work, turn, answer)),
        linear_share=_linear_share(work, check, answers[0]["prompt_tokens"] - answers[0]["kept"] + full),
        decode_share=_per_answer(turns, full, lambda turn, answer: _decode_share(contestant, turn, answer)),
        flops_ratio=Summary.of(_flops_ratio(work, turn, full, pruned) for turn in turns),
        agreement=agreement,
        overhead_request_ms=Summary.of(answer.get("overhead_request_ms") for answer in answers),
        overhead_token_ms=Summary.of(answer.get("overhead_token_ms") for answer in answers),
        decoder_bytes=contestant.decoder_bytes(),
        versions=turns[-1]["versions"],
    )


def _per_answer(turns: Sequence[Message], kept: int, value: Callable[[Message, Message], float]) -> Summary | None:
    return Summary.of(value(turn, answer) for turn in turns for answer in turn["answers"] if answer["kept"] == kept)


def _prefill_share(work: Work, turn: Message, answer: Message) -> float:
    """What is not vision counts as prefill where the peer does not tell them apart."""
    prefill_ms = answer.get("prefill_ms") or answer["ttft_ms"] - (answer["vision_ms"] or 0.0)
    operations = work.shape.prefill_linear_operations(answer["prompt_tokens"])
    return float(1000 * operations / prefill_ms / turn["probe"]["int8_operations_per_sec"])


def _linear_share(work: Work, check: Message, prompt_tokens: int) -> float | None:
    if "linear_ms" not in check:
        return None
    operations = work.shape.prefill_linear_operations(prompt_tokens)
    return float(1000 * operations / check["linear_ms"] / check["int8_operations_per_sec"])


def _decode_share(contestant: Contestant, turn: Message, answer: Message) -> float:
    read = answer["decode_tokens_per_sec"] * contestant.decoder_bytes()
    return float(read / turn["probe"]["read_bytes_per_sec"])


def _flops_ratio(work: Work, turn: Message, full: int, pruned: int) -> float | None:
    full_ms, pruned_ms = (_median_ttft(turn, kept) for kept in (full, pruned))
    if full_ms is None or pruned_ms is None:
        return None
    text = turn["answers"][0]["prompt_tokens"] - turn["answers"][0]["kept"]
    operations = {kept: work.shape.request_operations(kept, text) for kept in (full, pruned)}
    return pruned_ms / (full_ms * operations[pruned] / operations[full])


def _median_ttft(turn: Message, kept: int) -> float | None:
    found = Summary.of(answer["ttft_ms"] for answer in turn["answers"] if answer["kept"] == kept)
    return None if found is None else found.median


def _agreement(found: Message, reference: Message) -> Agreement | None:
    if not found or not reference:
        return None
    tokens = list(zip(found["tokens"], reference["tokens"], strict=False))
    equal = next((place for place, (one, other) in enumerate(tokens) if one != other), len(tokens))
    return Agreement(
        features_cosine=_cosine(found["features"], reference["features"]),
        logits_cosine=_cosine(found["logits"], reference["logits"]),
        tokens_equal=equal,
        tokens_compared=len(tokens),
    )


def _cosine(found: str | None, reference: str | None) -> float | None:
    """About the reference's mean over rows or the vocabulary: an offset that all have would look like agreement."""
    if found is None or reference is None:
        return None
    one, other = (np.load(Path(path)).astype(np.float64) for path in (found, reference))
    if one.shape != other.shape:
        return None
    mean = other.mean(axis=0)
    one, other = one - mean, other - mean
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))
