"""Policies: which K of the N visual tokens to keep. One file each, one interface.

A policy sees what a deployed selector can see (features before and after the projector, the tower's CLS attention,
the question's embeddings) and the budget, and names the K tokens to keep. Only ``Grip`` is trained.
"""

from grip_edge.calibration.policies.cdpruner import CdPruner
from grip_edge.calibration.policies.cls_attention import ClsAttention
from grip_edge.calibration.policies.divprune import DivPrune
from grip_edge.calibration.policies.eadp import Eadp
from grip_edge.calibration.policies.grip import Grip
from grip_edge.calibration.policies.interface import Evidence, Policy, ScorePolicy
from grip_edge.calibration.policies.random import Random
from grip_edge.calibration.policies.uniform import UniformStride
from grip_edge.calibration.policies.visionzip import VisionZip

__all__ = [
    "CdPruner",
    "ClsAttention",
    "DivPrune",
    "Eadp",
    "Evidence",
    "Grip",
    "Policy",
    "Random",
    "ScorePolicy",
    "UniformStride",
    "VisionZip",
]
