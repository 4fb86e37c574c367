"""Turns: their order, what they record, going on after an interruption, and contestants that fail."""

from __future__ import annotations

from benchmarks.peers.contestants import Contestant, Peer, Work
from benchmarks.peers.rounds import Journal, Plan, run_rounds
from tests.benchmarks.conftest import MakeContestant, start_stand_in


def entries(*contestants: Contestant) -> list[tuple[Peer, Contestant]]:
    peer = Peer("one", "One", (), (), contestants)
    return [(peer, contestant) for contestant in contestants]


def measure(work: Work, taking_part: list[tuple[Peer, Contestant]], plan: Plan) -> tuple[list[str], Journal]:
    said: list[str] = []
    journal = Journal(work.root / "turns.jsonl")
    peer, contestant = taking_part[0]
    with start_stand_in(work, peer, contestant) as probe:
        probe.hello()
        run_rounds(work, taking_part, probe, plan, journal, said.append)
    return said, journal


def test_every_other_round_is_backwards_and_nothing_is_done_twice(work: Work, contestant: MakeContestant) -> None:
    taking_part = entries(contestant("a"), contestant("b"))
    _, journal = measure(work, taking_part, Plan(rounds=1, repeats=1, new_tokens=5))
    said, journal = measure(work, taking_part, Plan(rounds=2, repeats=1, new_tokens=5))
    assert [turn["contestant"] for turn in journal.turns] == ["a", "b", "b", "a"]
    assert len(said) == 2
    assert Journal(work.root / "turns.jsonl").turns == journal.turns


def test_a_turn_has_all_budgets_cold_start_memory_and_the_probe(work: Work, contestant: MakeContestant) -> None:
    _, journal = measure(work, entries(contestant("a")), Plan(rounds=1, repeats=2, new_tokens=5))
    (turn,) = journal.turns
    assert [answer["kept"] for answer in turn["answers"]] == [576, 576, 144, 144]
    assert [answer["decode_tokens_per_sec"] for answer in turn["answers"]] == [200.0] * 4  # 4 steps in 20 ms
    assert turn["cold_start_ms"] > 1000 * turn["load_s"]
    assert turn["peak_rss_bytes"] > 1_000_000
    assert turn["probe"]["read_bytes_per_sec"] == 4e9


def test_a_contestant_that_fails_is_recorded_once_and_the_others_go_on(work: Work, contestant: MakeContestant) -> None:
    taking_part = entries(contestant("good"), contestant("bad", ends="dies"))
    _, journal = measure(work, taking_part, Plan(rounds=2, repeats=1, new_tokens=5))
    assert [turn["contestant"] for turn in journal.turns] == ["good", "bad", "good"]
    assert "exit code 3" in journal.turns[1]["error"]


def test_no_turn_begins_when_the_time_is_over(work: Work, contestant: MakeContestant) -> None:
    said, journal = measure(work, entries(contestant("a")), Plan(minutes=0.0))
    assert journal.turns == []
    assert said == ["The time is over; the same command goes on."]
