"""What a stage of training needs: the model and the data, where to write, the seed, and the other workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.loop import LoopSettings, StepFunction, run_steps
from grip_edge.calibration.scorer_interface import Scorer
from grip_edge.calibration.training.batches import BatchSource
from grip_edge.calibration.workers import Workers

Evaluate = Callable[[Scorer], dict[str, float]]


@dataclass(frozen=True)
class Setup:
    """``folder`` gets checkpoints and journals; ``evaluate`` measures a scorer at every checkpoint."""

    source: BatchSource
    folder: Path
    seed: int
    workers: Workers = Workers()
    evaluate: Evaluate | None = None

    @property
    def vlm(self) -> FrozenVlm:
        return self.source.vlm

    def rng(self, number: int, stage: int) -> np.random.Generator:
        """Of one draw of a stage; the same after a resume, different in each worker."""
        return np.random.default_rng([self.seed, number, stage, *([self.workers.index] if self.workers.index else [])])

    def run(
        self,
        name: str,
        parameters: Iterable[nn.Parameter],
        step: StepFunction,
        loop: LoopSettings,
        scorer: Scorer | None = None,
        stride: int = 1,
    ) -> None:
        """Train ``parameters`` at the loop's rate; ``scorer`` is measured, if it is given."""
        self.run_groups(name, [{"params": list(parameters), "lr": loop.learning_rate}], step, loop, scorer, stride)

    def run_groups(
        self,
        name: str,
        groups: list[dict[str, object]],
        step: StepFunction,
        loop: LoopSettings,
        scorer: Scorer | None = None,
        stride: int = 1,
    ) -> None:
        measure = self.evaluate
        evaluate = None if measure is None or scorer is None else lambda _: measure(scorer)
        run_steps(name, groups, step, loop, self.folder, evaluate, self.workers, stride)
