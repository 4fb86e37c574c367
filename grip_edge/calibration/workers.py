"""The processes of one training run: one per device, through Hugging Face Accelerate; or just this one.

Each worker draws batches of its own; gradients are averaged, so all hold the same weights at every step. Only the
main worker writes. Start several with  ``accelerate launch -m grip_edge.cli.main train ...``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from grip_edge.errors import MissingExtraError

if TYPE_CHECKING:
    from accelerate import Accelerator


class Workers:
    """``Workers()`` is this process alone, on the CPU."""

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator
        self.device: torch.device = torch.device("cpu") if accelerator is None else accelerator.device
        self.index: int = 0 if accelerator is None else accelerator.process_index
        self.count: int = 1 if accelerator is None else accelerator.num_processes

    @classmethod
    def launched(cls, cpu: bool = False) -> Workers:
        """On whatever device and in whatever company this process was started; ``cpu`` leaves accelerators alone."""
        try:
            from accelerate import Accelerator
        except ModuleNotFoundError:
            raise MissingExtraError("accelerate", "train") from None
        return cls(Accelerator(cpu=cpu))

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        if self._accelerator is None or self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten().float() for gradient in gradients])
        mean: Tensor = self._accelerator.reduce(flat, reduction="mean")
        for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def any(self, flag: bool) -> bool:
        """Whether the flag is raised in any worker; all of them get the same answer."""
        if self._accelerator is None or self.count == 1:
            return flag
        total: Tensor = self._accelerator.reduce(torch.tensor([float(flag)], device=self.device), reduction="sum")
        return bool(total.item() > 0)

    def wait(self) -> None:
        """Until all workers are here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    def leave(self) -> None:
        """All together, once nothing is left to share: a worker that is still connected when another ends may abort."""
        if self._accelerator is not None and self.count > 1:
            self._accelerator.wait_for_everyone()
            self._accelerator.end_training()
