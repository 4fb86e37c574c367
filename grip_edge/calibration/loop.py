"""The training loop that every learner here shares: bf16 weights with fp32 masters, cosine rate, exact resume.

A step is a function of its number alone (batches are drawn from ``numpy`` generators seeded by the step), so a run
that was killed continues from its last checkpoint as if nothing had happened.

Not here: what a step computes, evaluation, data.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

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
) -> None:
    """Run ``settings.steps`` steps, continuing from ``folder/<name>.pt`` if it is there; log to ``<name>.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = MasterAdamW(groups, settings.weight_decay)
    checkpoint = folder / f"{name}.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        optimiser.load_state_dict(state["optimiser"])
        first = int(state["step"])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, (folder / f"{name}.jsonl").open("a") as log:
        task = progress.add_task(name, total=settings.steps, completed=first)
        started = time.perf_counter()
        for step in range(first, settings.steps):
            loss, metrics = step_function(step)
            loss.backward()
            norm = optimiser.step(settings.rate_at(step), settings.clip_norm)
            last = step + 1 == settings.steps
            if step % settings.log_every == 0 or last:
                record = {"step": step, "loss": float(loss.detach()), "grad_norm": norm, **metrics}
                record["seconds"] = round(time.perf_counter() - started, 1)
                log.write(json.dumps(record) + "\n")
                log.flush()
                progress.update(task, description=f"{name}  loss {record['loss']:.3f}")
            if (step + 1) % settings.checkpoint_every == 0 or last:
                _save(checkpoint, {"step": step + 1, "optimiser": optimiser.state_dict()})
                if evaluate is not None:
                    log.write(json.dumps({"step": step, **evaluate(step)}) + "\n")
            progress.advance(task)


def _save(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def trainable(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    return [p for module in modules for p in module.parameters() if p.requires_grad]
