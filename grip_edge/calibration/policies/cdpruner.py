"""CDPruner (2506.10967): a determinantal point process conditioned on the question; and its centred form.

    r = min-max over the image of the mean cosine with the question's tokens
    S = cosine of the projected tokens
    L = diag(r) S diag(r);  keep the set of largest det(L_kept), greedily

As in the authors' code (Theia-4869/CDPruner, ``llava/model/llava_arch.py``, ``encode_images``), but for r: there it is
the cosine of CLIP's image patches with CLIP's text embedding, negated, since CLIP's patches are anti-correlated with
the text that they show. A LLaVA checkpoint has no text tower; here the question's embeddings in the language model are
the only text, and r is taken there, not negated, as OpenVINO GenAI does for models without CLIP (``negated`` does it
the authors' way).

Cen-CDPruner (Cen-Prune, 2608.30263, section 4.3) measures S after subtracting the image's mean token, and replaces r
by r * g, where g = min-max of minus the mean uncentred cosine to all tokens: distinctiveness, which centring would
lose. Its authors have published no code. Not here: OpenVINO's blend with S alone and its split into halves.
"""

from __future__ import annotations

from torch import Tensor

from grip_edge.calibration.policies.greedy import MostDiverse
from grip_edge.calibration.policies.interface import Evidence
from grip_edge.calibration.policies.set_policy import SetPolicy
from grip_edge.calibration.policies.similarity import cosine, mean_cosine, min_max, question_cosine


class CdPruner(SetPolicy):
    rule = MostDiverse

    def __init__(self, centred: bool = False, negated: bool = False) -> None:
        self.name = ("Cen-" if centred else "") + "CDPruner" + (", negated relevance" if negated else "")
        self.centred = centred
        self.negated = negated

    def measures(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """L [R,N,N] and its diagonal [R,N]."""
        tokens = evidence.visual
        relevance = question_cosine(evidence).sum(dim=-1) / evidence.question_mask.sum(dim=-1, keepdim=True)
        weight = min_max(-relevance if self.negated else relevance)
        if self.centred:
            weight = weight * min_max(-mean_cosine(tokens))
            tokens = tokens - tokens.mean(dim=1, keepdim=True)
        kernel = weight[:, :, None] * cosine(tokens, tokens) * weight[:, None]
        return kernel, kernel.diagonal(dim1=1, dim2=2)
