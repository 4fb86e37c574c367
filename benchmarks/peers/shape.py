"""The yardstick's shape, and what a request to it costs: operations of the prefill, bytes of the weights.

About the size of SmolVLM-500M, small enough for two cores and large enough that its weights fit no cache. Counted are
matrix products, as in ``grip_edge.export.flops``: two operations per multiplication. Needs the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass

TEMPLATE = "USER: <image>\n{question} ASSISTANT:"
QUESTION = "What is here?"  # a token per character and the one that opens a text: 32 tokens beside the image's
IMAGE_TOKEN = "<image>"
IMAGE_TOKEN_ID = 32000


@dataclass(frozen=True)
class Shape:
    """LLaVA: a CLIP tower read at its second-last layer, a projector of two layers, a Llama decoder."""

    vision_width: int = 512
    vision_layers: int = 12
    vision_heads: int = 8
    vision_mlp: int = 2048
    image_side_px: int = 336
    patch_px: int = 14
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp: int = 4096
    vocabulary: int = 32064
    max_positions: int = 2048

    @property
    def visual_tokens(self) -> int:
        return (self.image_side_px // self.patch_px) ** 2

    @property
    def layer_weights(self) -> int:
        """Of the matrices in all decoder layers."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.mlp)

    @property
    def head_weights(self) -> int:
        return self.vocabulary * self.width

    @property
    def read_per_token(self) -> int:
        """Weights that each new token reads: all but the embedding table."""
        return self.layer_weights + self.head_weights

    def prefill_linear_operations(self, tokens: int) -> int:
        """The LM head works on the last token only."""
        return 2 * tokens * self.layer_weights + 2 * self.head_weights

    def prefill_operations(self, tokens: int) -> int:
        """With attention over the earlier tokens: half of the square."""
        return self.prefill_linear_operations(tokens) + 2 * self.layers * tokens**2 * self.width

    def vision_operations(self) -> int:
        tokens, width, layers = self.visual_tokens + 1, self.vision_width, self.vision_layers - 1
        matrices = 2 * tokens * layers * (4 * width**2 + 2 * width * self.vision_mlp)
        return matrices + 4 * layers * tokens**2 * width + 2 * self.visual_tokens * 3 * self.patch_px**2 * width

    def projector_operations(self, kept: int) -> int:
        return 2 * kept * (self.vision_width * self.width + self.width**2)

    def request_operations(self, kept: int, text_tokens: int) -> int:
        """Up to the first token."""
        return self.vision_operations() + self.projector_operations(kept) + self.prefill_operations(kept + text_tokens)


YARDSTICK = Shape()
TOY = Shape(
    vision_width=32, vision_layers=3, vision_heads=2, vision_mlp=64, image_side_px=56, width=64, layers=2, heads=2,
    mlp=128,
)  # fmt: skip
SHAPES = {"yardstick": YARDSTICK, "toy": TOY}
