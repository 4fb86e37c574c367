"""The training loop that every learner here shares: bf16 weights with fp32 masters, cosine rate, exact resume.

A step is a function of its number alone (batches are drawn from ``numpy`` generators seeded by the step), so a run
that was killed continues from its last checkpoint as if nothing had happened. Ctrl-C writes a checkpoint first. Steps
that belong together (several updates on one draw) form a stride, and checkpoints lie between strides only.

Not here: what a step computes, evaluation, data, processes (``workers``), records (``journal``).
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from grip_edge.calibration.journal import Journal
from grip_edge.calibration.workers import Workers
from grip_edge.errors import UserError

_SHOWN = ("loss", "reward", "accuracy")  # what the progress line shows, by the beginning of its name

StepFunction = Callable[[int], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class LoopSettings:
    steps: int
    learning_rate: float
    warmup_steps: int = 100
    final_rate: float = 0.02
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    checkpoint_every: int = 200
    log_every: int = 20

    def __post_init__(self) -> None:
        if self.steps < 0 or min(self.checkpoint_every, self.log_every) < 1:
            raise UserError(
                "A loop has no fewer than 0 steps, and checkpoint_every and log_every are at least 1; got "
                f"{self.steps}, {self.checkpoint_every} and {self.log_every}."
            )

    def rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine from 1 to ``final_rate``; a factor on each group's learning rate."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


class MasterAdamW:
    """AdamW on fp32 copies of low-precision parameters; after each step the parameters are the rounded copies."""

    def __init__(self, groups: list[dict[str, Any]], weight_decay: float) -> None:
        self.parameters = [p for group in groups for p in group["params"]]
        self.masters = [p.detach().float().clone() for p in self.parameters]
        masters = iter(self.masters)
        self.inner = torch.optim.AdamW(
            [{**group, "params": [next(masters) for _ in group["params"]]} for group in groups],
            betas=(0.9, 0.98),
            weight_decay=weight_decay,
        )
        self.base_rates = [float(group["lr"]) for group in groups]

    def step(self, rate: float, clip_norm: float) -> float:
        """One update at ``rate`` times each group's learning rate; returns the gradient norm before clipping."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        norm = float(torch.nn.utils.clip_grad_norm_(self.masters, clip_norm))
        if math.isfinite(norm):
            for group, base in zip(self.inner.param_groups, self.base_rates, strict=True):
                group["lr"] = base * rate
            self.inner.step()
            with torch.no_grad():
                for parameter, master in zip(self.parameters, self.masters, strict=True):
                    parameter.copy_(master)
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {"masters": self.masters, "inner": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["inner"])
        with torch.no_grad():
            for parameter, master, saved in zip(self.parameters, self.masters, state["masters"], strict=True):
                master.copy_(saved)
                parameter.copy_(saved)


def run_steps(
    name: str,
    groups: list[dict[str, Any]],
    step_function: StepFunction,
    settings: LoopSettings,
    folder: Path,
    evaluate: Callable[[int], dict[str, float]] | None = None,
    workers: Workers | None = None,
    stride: int = 1,
) -> None:
    """Run ``settings.steps`` steps, continuing from ``folder/<name>.pt`` if it is there; log to ``<name>.jsonl``.

    ``evaluate`` is asked at every checkpoint, of the main worker alone.
    """
    workers = workers or Workers()
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = MasterAdamW(groups, settings.weight_decay)
    checkpoint = folder / f"{name}.pt"
    first = saved = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        optimiser.load_state_dict(state["optimiser"])
        first = saved = int(state["step"])
    with _Display(name, settings.steps, first, folder, workers) as display, _interruptions() as interrupted:
        for step in range(first, settings.steps):
            loss, metrics = step_function(step)
            loss.backward()
            workers.average_gradients(optimiser.parameters)
            norm = optimiser.step(settings.rate_at(step), settings.clip_norm)
            last = step + 1 == settings.steps
            if step % settings.log_every == 0 or last:
                display.record(step, {"loss": float(loss.detach()), "grad_norm": norm, **metrics})
            stop = workers.any(bool(interrupted))
            due = (step + 1) // settings.checkpoint_every > saved // settings.checkpoint_every or stop
            if last or (due and (step + 1) % stride == 0):
                saved = step + 1
                if workers.is_main:
                    _save(checkpoint, {"step": saved, "optimiser": optimiser.state_dict()})
                    if evaluate is not None and not stop:
                        display.record(step, evaluate(step), timed=False)
                workers.wait()
                if stop:
                    raise KeyboardInterrupt
            display.advance()


class _Display:
    """Progress on the terminal and in the journal; silent in all workers but the main one."""

    def __init__(self, name: str, steps: int, first: int, folder: Path, workers: Workers) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not workers.is_main)
        self._task = self._progress.add_task(name, total=steps, completed=first)
        self._journal = Journal(folder, name, first) if workers.is_main else None
        self._name = name
        self._shown: dict[str, float] = {}
        self._started = time.perf_counter()

    def record(self, step: int, values: dict[str, float], timed: bool = True) -> None:
        self._shown.update({key: value for key, value in values.items() if key.startswith(_SHOWN)})
        shown = "".join(f"  {key} {value:.3f}" for key, value in self._shown.items())
        self._progress.update(self._task, description=f"{self._name}{shown}")
        if self._journal is not None:
            seconds = {"seconds": round(time.perf_counter() - self._started, 1)} if timed else {}
            self._journal.write({"step": step, **values, **seconds})

    def advance(self) -> None:
        self._progress.advance(self._task)

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        if self._journal is not None:
            self._journal.close()


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """A list that Ctrl-C makes non-empty, so that a step can be finished first; a second Ctrl-C strikes at once."""
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen  # signals arrive in the main thread alone
        return

    def remember(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, previous)


def _save(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def trainable(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    return [p for module in modules for p in module.parameters() if p.requires_grad]
