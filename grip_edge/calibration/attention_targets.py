"""What the frozen model itself looks at: deep text-to-vision attention, the target of the scorer's warm-up.

In the decoder's deep layers, the last prompt token (which predicts the answer) and the question's tokens attend to
the visual tokens that the answer rests on (TwigVLM++, section 3.2, distils such a map of layer 19 of 32).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from grip_edge.calibration.frozen_vlm import FrozenVlm, Prompts


def layer_attention(vlm: FrozenVlm, visual: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """Attention to the visual tokens per decoder layer, mean over heads, for visual [R,N,D].

    Returns (last, question), each fp32 [layers,R,N]: from the last prompt token, and the mean over the tokens
    between image and answer.
    """
    layers: int = vlm.model.config.text_config.num_hidden_layers
    length = len(vlm.before) + visual.shape[1] + max(len(after) for after in prompts.after)
    size = vlm.rows_per_pass(length, layers_kept=layers)
    passes = [range(start, min(start + size, len(prompts))) for start in range(0, len(prompts), size)]
    parts = [_one_pass(vlm, visual[list(rows)], prompts.rows(rows)) for rows in passes]
    last, question = (torch.cat(kind, dim=1) for kind in zip(*parts, strict=True))
    return last, question


@torch.no_grad()
def _one_pass(vlm: FrozenVlm, visual: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
    texts = [torch.tensor(after, device=vlm.device) for after in prompts.after]
    lengths = torch.tensor([len(text) for text in texts], device=vlm.device)
    embed = vlm.model.get_input_embeddings()
    before = embed(torch.tensor(vlm.before, device=vlm.device))[None].expand(len(texts), -1, -1)
    text = embed(pad_sequence(texts, batch_first=True, padding_value=0))
    out = vlm.model.model.language_model(
        inputs_embeds=torch.cat([before, visual, text], dim=1), use_cache=False, output_attentions=True
    )
    first = before.shape[1]
    begin = first + visual.shape[1]
    inside = torch.arange(text.shape[1], device=vlm.device)[None] < lengths[:, None]
    last, question = [], []
    for weights in out.attentions:
        to_visual = weights.float().mean(dim=1)[:, begin:, first:begin]
        last.append(to_visual[torch.arange(len(texts)), lengths - 1])
        question.append((to_visual * inside[..., None]).sum(dim=1) / lengths[:, None])
    return torch.stack(last), torch.stack(question)


def normalised(attention: Tensor) -> Tensor:
    """To a distribution over the visual tokens: [...,N] -> [...,N]."""
    return attention / attention.sum(dim=-1, keepdim=True).clamp_min(1e-9)
