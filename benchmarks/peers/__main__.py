"""The command; what it does stands in the package's docstring."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from benchmarks.choosing import named
from benchmarks.peers.bars import make_bars
from benchmarks.peers.contestants import Contestant, Peer, Work
from benchmarks.peers.peers import all_peers
from benchmarks.peers.plot import write_plot
from benchmarks.peers.preparing import PeerError, check, prepare, prepare_yardstick, start
from benchmarks.peers.protocol import Message
from benchmarks.peers.report import Report, machine_line, write_report
from benchmarks.peers.rounds import Journal, Plan, run_rounds
from benchmarks.peers.shape import SHAPES
from benchmarks.peers.summary import REFERENCE, Summary, make_row

_PROBE = Contestant("probe", "probe", "", 0, Path(), lambda: 0)
_THIS_INTERPRETER = Peer("probe", "probe", (), (), (_PROBE,))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--only", help="Peers to take part, by name, separated by commas; default: all.")
@click.option("--rounds", default=Plan.rounds, show_default=True)
@click.option("--repeats", default=Plan.repeats, show_default=True, help="Requests per budget and turn.")
@click.option("--new-tokens", default=Plan.new_tokens, show_default=True)
@click.option("--minutes", type=float, help="Begin no turn after so many minutes of measuring.")
@click.option("--threads", default=2, show_default=True)
@click.option("--shape", "shape_name", type=click.Choice(list(SHAPES)), default="yardstick", show_default=True)
@click.option("--prepare-only", is_flag=True, help="Environments, conversions and comparisons; no measuring.")
@click.option("--report-only", is_flag=True, help="Write the report of the turns that are there.")
@click.option("--fresh", is_flag=True, help="Forget the turns that are there.")
def main(
    folder: Path,
    only: str | None,
    rounds: int,
    repeats: int,
    new_tokens: int,
    minutes: float | None,
    threads: int,
    shape_name: str,
    prepare_only: bool,
    report_only: bool,
    fresh: bool,
) -> None:
    """Measure grip-edge and its peers in FOLDER, and write the report there."""
    work = Work(folder.resolve(), shape_name, threads)
    peers = named(all_peers(work), only, "peer")
    turns = work.root / f"turns-{threads}-threads.jsonl"
    if fresh and turns.is_file():
        shutil.move(turns, turns.with_suffix(".before.jsonl"))
    try:
        prepare_yardstick(work)
    except PeerError as error:
        raise click.ClickException(str(error)) from None
    failures: dict[str, str] = {}
    checks: dict[str, Message] = {}
    for peer in peers:
        _prepare_peer(work, peer, failures, checks)
    journal = Journal(turns)
    if not (prepare_only or report_only):
        entries = [(peer, one) for peer in peers for one in peer.contestants if one.name not in failures]
        plan = Plan(rounds, repeats, new_tokens, minutes)
        with start(work, _THIS_INTERPRETER, _PROBE) as probe:
            probe.hello()
            run_rounds(work, entries, probe, plan, journal, _say)
    if not prepare_only:
        _write(work, peers, failures, checks, journal)


def _prepare_peer(work: Work, peer: Peer, failures: dict[str, str], checks: dict[str, Message]) -> None:
    try:
        prepare(work, peer, _say)
    except PeerError as error:
        _say(f"{peer.title}: {error}")
        failures |= {contestant.name: str(error) for contestant in peer.contestants}
        return
    for contestant in peer.contestants:
        try:
            checks[contestant.name] = check(work, peer, contestant)
        except PeerError as error:
            _say(str(error))
            failures[contestant.name] = str(error)


def _write(
    work: Work, peers: Sequence[Peer], failures: dict[str, str], checks: dict[str, Message], journal: Journal
) -> None:
    rows = [
        make_row(
            work,
            peer,
            contestant,
            [turn for turn in journal.turns if turn["contestant"] == contestant.name],
            failures.get(contestant.name),
            checks,
        )
        for peer in peers
        for contestant in peer.contestants
    ]
    keys = ("read_bytes_per_sec", "int8_operations_per_sec")
    found = {key: Summary.of(turn["probe"][key] for turn in journal.turns) for key in keys}
    probe = {key: summary for key, summary in found.items() if summary is not None}
    rounds = 1 + max((turn["round"] for turn in journal.turns), default=-1)
    report = Report(work, machine_line(), rows, make_bars(work, rows), probe, rounds)
    write_report(report, work.root / "report")
    write_plot(work, rows, work.root / "report" / "peers.png")
    if REFERENCE not in checks:
        _say(f"Without '{REFERENCE}' nothing could be compared with it.")
    _say(f"Report: {work.root / 'report'}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
