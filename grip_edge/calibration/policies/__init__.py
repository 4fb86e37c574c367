"""Policies: which K of the N visual tokens to keep. One file each, one interface.

A policy sees what a deployed selector can see (features before and after the projector, the tower's CLS attention,
the question's embeddings) and the budget, and scores the tokens. Only ``Grip`` is trained. ``POLICIES`` makes those
that need no training by the names of ``grip_edge.policy_catalog``; ``IN_DECODER_POLICIES`` those that prune inside the
language model, behind an interface of their own (``in_decoder``).
"""

from collections.abc import Callable

from grip_edge.calibration.policies.cdpruner import CdPruner
from grip_edge.calibration.policies.cls_attention import ClsAttention
from grip_edge.calibration.policies.divprune import DivPrune
from grip_edge.calibration.policies.eadp import Eadp
from grip_edge.calibration.policies.fastv import FastV
from grip_edge.calibration.policies.grip import Grip
from grip_edge.calibration.policies.in_decoder import InDecoderPolicy
from grip_edge.calibration.policies.interface import Evidence, Policy
from grip_edge.calibration.policies.pyramiddrop import PyramidDrop
from grip_edge.calibration.policies.random import Random
from grip_edge.calibration.policies.uniform import UniformStride
from grip_edge.calibration.policies.visionzip import VisionZip

POLICIES: dict[str, Callable[[], Policy]] = {
    "random": Random,
    "uniform": UniformStride,
    "cls": ClsAttention,
    "visionzip": VisionZip,
    "divprune": DivPrune,
    "cdpruner": CdPruner,
    "cen-cdpruner": lambda: CdPruner(centred=True),
    "eadp": Eadp,
}

IN_DECODER_POLICIES: dict[str, Callable[[], InDecoderPolicy]] = {"fastv": FastV, "pyramiddrop": PyramidDrop}

__all__ = [
    "IN_DECODER_POLICIES",
    "POLICIES",
    "CdPruner",
    "ClsAttention",
    "DivPrune",
    "Eadp",
    "Evidence",
    "FastV",
    "Grip",
    "InDecoderPolicy",
    "Policy",
    "PyramidDrop",
    "Random",
    "UniformStride",
    "VisionZip",
]
