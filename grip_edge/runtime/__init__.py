"""The runtime stage: from a bundle to answers, on the device, with ONNX Runtime, or a backend beside it (no torch)."""

from grip_edge.runtime.pipeline import Pipeline
from grip_edge.runtime.result import BudgetUse, Result, Timings
from grip_edge.runtime.stream import Stream

__all__ = ["BudgetUse", "Pipeline", "Result", "Stream", "Timings"]
