"""Lines of JSON between the measuring process and one worker, over the worker's standard input and output.

    worker   {"load_s": 1.2, "loaded_rss_bytes": 99, "versions": {...}}    once the model is loaded
    asked    {"do": "answer", "kept": 576, "new_tokens": 64}
    worker   {"vision_ms": 60.1, "ttft_ms": 640.2, "decode_ms": 900.3, "first_token_at": 12.3, ...}
    asked    {"do": "check", "folder": "/tmp/x"}
    worker   {"features": "/tmp/x/features.npy", "logits": null, "tokens": [5, 7]}
    asked    {"do": "stop"}
    worker   {"peak_rss_bytes": 123}                                 and ends

An error is a line {"error": "..."}, after which the worker ends. What libraries print goes to the log: the worker's
file descriptor 1 is the log's, and only the protocol has the pipe. Both sides are here, so that they stay one thing;
needs the standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

Message = dict[str, Any]


class WorkerError(Exception):
    """One line: why a worker could not answer."""


class Served(Protocol):
    """What every worker module provides."""

    def answer(self, kept: int, new_tokens: int) -> Message: ...
    def versions(self) -> Mapping[str, str]: ...


@runtime_checkable
class Model(Served, Protocol):
    """A worker whose numbers can be compared with the other models'."""

    def check(self, folder: Path) -> Message: ...


def serve(load: Callable[[Message], Served]) -> None:
    """The worker's side. Settings are the program's one argument, as JSON."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        start = time.monotonic()
        model = load(json.loads(sys.argv[1]))
        loaded = {"load_s": time.monotonic() - start, "loaded_rss_bytes": memory_bytes("VmRSS")}
        _say(lines, loaded | {"versions": dict(model.versions())})
        for line in sys.stdin:
            asked = json.loads(line)
            if asked["do"] == "stop":
                _say(lines, {"peak_rss_bytes": memory_bytes("VmHWM")})
                break
            _say(lines, _answer(model, asked))
    except Exception as error:  # whatever a peer raises is its line in the report
        traceback.print_exc()
        _say(lines, {"error": one_line(error)})
        os._exit(1)
    os._exit(0)  # some libraries crash or hang while they unload


def _answer(model: Served, asked: Message) -> Message:
    if asked["do"] == "check" and isinstance(model, Model):
        return model.check(Path(asked["folder"]))
    return model.answer(asked["kept"], asked["new_tokens"])


def _say(lines: IO[str], message: Message) -> None:
    lines.write(json.dumps(message) + "\n")
    lines.flush()


def memory_bytes(field: str, status: Path = Path("/proc/self/status")) -> int | None:
    """Of this process, by Linux: ``VmRSS`` is what it holds now, ``VmHWM`` the most that it has held."""
    for line in status.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    return None


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Worker:
    """The asking side: one process. ``started_at`` is on the clock of ``first_token_at`` (the system's monotonic one).

    ``hello`` is the worker's first line. Leaving the context ends the process in any case.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log.open("w", encoding="utf-8")
        self.started_at = time.monotonic()
        self._process = subprocess.Popen(
            list(command),
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def hello(self) -> Message:
        return self._read()

    def ask(self, **asked: Any) -> Message:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; what it last said, or how, is read below
        return self._read()

    def _read(self) -> Message:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            reason = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise WorkerError(f"the process ended with {reason}; see {self._log.name}")
        message: Message = json.loads(line)
        if "error" in message:
            raise WorkerError(message["error"])
        return message
