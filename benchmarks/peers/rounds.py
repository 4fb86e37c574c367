"""The measuring: contestants take turns, round by round, every other round backwards.

A turn is a process of its own: its start to its first token (cold, on a warm disk), then for each budget one request
that does not count and a few that do, then its peak memory. So no process holds memory or cores while another is
timed, and each round repeats all of it. The machine is probed before every turn. Each finished turn is a line of the
journal, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.contestants import Contestant, Peer, Work
from benchmarks.peers.preparing import Say, start
from benchmarks.peers.protocol import Message, Worker, WorkerError

_WARM_TOKENS = 4


@dataclass(frozen=True)
class Plan:
    """``minutes`` None is no limit; after that many no further turn begins."""

    rounds: int = 3
    repeats: int = 2
    new_tokens: int = 64
    minutes: float | None = None


class Journal:
    """Turns that are done, and contestants that failed in one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.turns: list[Message] = [json.loads(line) for line in lines]

    def has(self, number: int, name: str) -> bool:
        """Also where the contestant failed in whichever round: it would again."""
        turns = (turn for turn in self.turns if turn["contestant"] == name)
        return any(turn["round"] == number or "error" in turn for turn in turns)

    def add(self, turn: Message) -> None:
        self.turns.append(turn)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(turn) + "\n")


def run_rounds(
    work: Work, entries: Sequence[tuple[Peer, Contestant]], probe: Worker, plan: Plan, journal: Journal, say: Say
) -> None:
    end = None if plan.minutes is None else time.monotonic() + 60 * plan.minutes
    for number in range(plan.rounds):
        for peer, contestant in entries if number % 2 == 0 else reversed(entries):
            if journal.has(number, contestant.name):
                continue
            if end is not None and time.monotonic() > end:
                say("The time is over; the same command goes on.")
                return
            turn: Message = {"round": number, "contestant": contestant.name, "probe": _probe(probe)}
            try:
                turn |= take_turn(work, peer, contestant, plan)
            except WorkerError as error:
                turn["error"] = str(error)
            journal.add(turn)
            say(f"round {number + 1}: {contestant.name}: {_short(turn)}")


def take_turn(work: Work, peer: Peer, contestant: Contestant, plan: Plan) -> Message:
    full, pruned = work.budgets
    with start(work, peer, contestant) as worker:
        hello = worker.hello()
        first = worker.ask(do="answer", kept=full, new_tokens=_WARM_TOKENS)
        answers: list[Any] = []
        for kept in (full, pruned) if contestant.prunes else (full,):
            worker.ask(do="answer", kept=kept, new_tokens=_WARM_TOKENS)
            for _ in range(plan.repeats):
                answer = worker.ask(do="answer", kept=kept, new_tokens=plan.new_tokens)
                tokens = len(answer.pop("tokens"))
                rate = 1000 * (tokens - 1) / answer["decode_ms"]
                answers.append(answer | {"kept": kept, "decode_tokens_per_sec": rate})
        return hello | {
            "cold_start_ms": 1000 * (first["first_token_at"] - worker.started_at),
            "answers": answers,
            "peak_rss_bytes": worker.ask(do="stop")["peak_rss_bytes"],
        }


def _probe(probe: Worker) -> Message:
    return probe.ask(do="answer", kept=0, new_tokens=0)


def _short(turn: Message) -> str:
    if "error" in turn:
        return str(turn["error"])
    parts = [f"{answer['ttft_ms']:.0f} ms, {answer['decode_tokens_per_sec']:.1f}/s" for answer in turn["answers"]]
    return "; ".join(parts)
