"""Environments, conversions and the comparison of each contestant, each once: what succeeded leaves a marker.

A marker holds what it was made with (pins, arguments), so that another version is made anew. Whatever fails is a
``PeerError`` of one line; the log has the rest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.contestants import Contestant, Peer, Step, Work
from benchmarks.peers.protocol import Message, Worker, WorkerError

Say = Callable[[str], None]

_PATIENCE_S = 3 * 3600


class PeerError(Exception):
    """One line: what could not be done for a peer, and why."""


def prepare_yardstick(work: Work) -> None:
    made_with = [work.shape_name, *(_digest(Path(__file__).with_name(name)) for name in ("yardstick.py", "shape.py"))]
    with _once(work.root / "done" / "yardstick.json", made_with) as wanted:
        if wanted:
            work.root.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "benchmarks.peers.yardstick", str(work.root), "--shape", work.shape_name]
            _run(work, "yardstick", command)


def prepare(work: Work, peer: Peer, say: Say) -> None:
    """The peer's environment and conversions."""
    if peer.pins:
        _make_environment(work, peer, say)
    for step in peer.steps:
        _convert(work, peer, step, say)


def _make_environment(work: Work, peer: Peer, say: Say) -> None:
    folder = work.root / "environments" / peer.name
    with _once(work.root / "done" / f"environment-{peer.name}.json", peer.pins) as wanted:
        if wanted:
            say(f"{peer.title}: environment")
            shutil.rmtree(folder, ignore_errors=True)
            _run(work, f"environment-{peer.name}", [sys.executable, "-m", "venv", str(folder)])
            for number, pins in enumerate(peer.pins):
                command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", *pins]
                _run(work, f"environment-{peer.name}-{number}", command)


def _convert(work: Work, peer: Peer, step: Step, say: Say) -> None:
    with _once(work.root / "done" / f"{step.name}.json", [step.arguments, work.shape_name]) as wanted:
        if wanted or not step.made.exists():
            say(f"{peer.title}: {step.name}")
            step.made.parent.mkdir(parents=True, exist_ok=True)
            _run(work, step.name, [str(work.interpreter(peer.name, peer.pins)), *step.arguments])
            if not step.made.exists():
                raise PeerError(f"{step.name} left no {step.made}; see {work.log(step.name)}")


@contextmanager
def _once(marker: Path, made_with: Any) -> Iterator[bool]:
    """True where there is work to do; the marker is written when that ended well."""
    text = json.dumps(made_with)
    done = marker.is_file() and marker.read_text() == text
    yield not done
    if not done:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text(text)


def _run(work: Work, name: str, command: list[str]) -> None:
    log = work.log(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = work.process_environment()
    try:
        with log.open("w", encoding="utf-8") as output:
            done = subprocess.run(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=_PATIENCE_S, check=False
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(f"{name}: {error}") from None
    if done.returncode:
        raise PeerError(f"{name} ended with exit code {done.returncode}: {_last_line(log)} (see {log})")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no output"])[-1][:200]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def start(work: Work, peer: Peer, contestant: Contestant) -> Worker:
    settings = contestant.settings | {
        "folder": str(contestant.folder),
        "picture": str(work.picture),
        "threads": work.threads,
    }
    module = f"benchmarks.peers.workers.{contestant.worker}"
    command = [str(work.interpreter(peer.name, peer.pins)), "-m", module, json.dumps(settings)]
    return Worker(command, work.process_environment(), work.log(f"worker-{slug(contestant.name)}"))


def check(work: Work, peer: Peer, contestant: Contestant) -> Message:
    """The contestant's answer to be compared, made once per conversion; arrays stay in files."""
    folder = work.root / "checks" / slug(contestant.name)
    answer = folder / "answer.json"
    worker = Path(__file__).parent / "workers" / f"{contestant.worker}.py"
    converted = [(step.name, step.arguments, step.made.stat().st_mtime_ns) for step in peer.steps]
    made_with = [peer.pins, contestant.settings, converted, _digest(worker)]
    with _once(work.root / "done" / f"check-{slug(contestant.name)}.json", made_with) as wanted:
        if wanted:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                with start(work, peer, contestant) as process:
                    process.hello()
                    answer.write_text(json.dumps(process.ask(do="check", folder=str(folder))))
            except WorkerError as error:
                raise PeerError(f"{contestant.name}: {error}") from None
    found: Message = json.loads(answer.read_text())
    return found


def slug(name: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())
