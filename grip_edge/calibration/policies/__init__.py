"""Policies: which K of the N visual tokens to keep. One file each, one interface.

A policy sees what a deployed selector can see (features, the tower's CLS attention, the question's embeddings) and
the budget, and gives one score per token; the K best are kept.
"""

from grip_edge.calibration.policies.cls_attention import ClsAttention
from grip_edge.calibration.policies.grip import Grip
from grip_edge.calibration.policies.interface import Evidence, Policy
from grip_edge.calibration.policies.random import Random
from grip_edge.calibration.policies.uniform import UniformStride

__all__ = ["ClsAttention", "Evidence", "Grip", "Policy", "Random", "UniformStride"]
