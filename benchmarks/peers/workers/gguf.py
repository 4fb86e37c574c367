"""The yardstick as GGUF files: the decoder, the image encoder, and the decoder quantised by llama.cpp itself.

    python -m benchmarks.peers.workers.gguf OUT CHECKPOINT       text-f16.gguf and image-f16.gguf
    python -m benchmarks.peers.workers.gguf OUT --quantise q8_0  text-q8_0.gguf

llama.cpp's image graph for LLaVA puts CLS behind the patches, where CLIP has it before them. The rows of the position
table are turned here so that every token gets its own position nevertheless; the graph then cuts off the first patch in
place of CLS, which the worker can only shift back. The vocabulary holds the right number of tokens and no text, since
requests are made of token ids.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Weights = dict[str, NDArray[Any]]

_TEXT_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_IMAGE_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down", "layer_norm1": "ln1",
    "layer_norm2": "ln2",
}  # fmt: skip
_F16, _Q8_0, _Q4_0 = 1, 7, 2  # of llama.cpp's enum of file types
_BYTES_FROM = 3  # ids of the byte tokens that its tokenizer wants


def main() -> None:
    out, first, *rest = sys.argv[1:]
    Path(out).mkdir(parents=True, exist_ok=True)
    if first == "--quantise":
        _quantise(Path(out), rest[0])
    else:
        checkpoint = Path(first)
        config = json.loads((checkpoint / "config.json").read_text())
        weights = load_file(checkpoint / "model.safetensors")
        _write_image(Path(out) / "image-f16.gguf", config, weights)
        _write_text(Path(out) / "text-f16.gguf", config["text_config"], weights)


def _write_text(path: Path, config: dict[str, Any], weights: Weights) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(_rope_base(config))
    writer.add_file_type(_F16)
    _add_vocabulary(writer, config["vocab_size"])
    _add(writer, "token_embd.weight", weights["language_model.model.embed_tokens.weight"])
    _add(writer, "output_norm.weight", weights["language_model.model.norm.weight"])
    _add(writer, "output.weight", weights["language_model.lm_head.weight"])
    for layer in range(config["num_hidden_layers"]):
        for name, theirs in _TEXT_NAMES.items():
            values = weights[f"language_model.model.layers.{layer}.{name}.weight"]
            if theirs in ("attn_q", "attn_k"):
                values = _interleaved(values, heads)
            _add(writer, f"blk.{layer}.{theirs}.weight", values)
    _finish(writer)


def _rope_base(config: dict[str, Any]) -> float:
    rope = config.get("rope_parameters") or {}
    return float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))


def _interleaved(values: NDArray[Any], heads: int) -> NDArray[Any]:
    """llama.cpp turns neighbouring rows of a head, transformers rows half a head apart."""
    rows, columns = values.shape
    halves = values.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _add_vocabulary(writer: Any, size: int) -> None:
    tokens = [f"token{number}" for number in range(size)]
    types = [gguf.TokenType.NORMAL] * size
    tokens[:3] = ["<unk>", "<s>", "</s>"]
    types[:3] = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    for byte in range(256):
        tokens[_BYTES_FROM + byte] = f"<0x{byte:02X}>"
        types[_BYTES_FROM + byte] = gguf.TokenType.BYTE
    writer.add_vocab_size(size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(number) for number in range(size)])
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def _write_image(path: Path, config: dict[str, Any], weights: Weights) -> None:
    vision, width = config["vision_config"], config["text_config"]["hidden_size"]
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_projection_dim(width)
    writer.add_vision_embedding_length(vision["hidden_size"])
    writer.add_vision_feed_forward_length(vision["intermediate_size"])
    writer.add_vision_block_count(vision["num_hidden_layers"])
    writer.add_vision_head_count(vision["num_attention_heads"])
    writer.add_vision_attention_layernorm_eps(vision["layer_norm_eps"])
    writer.add_vision_image_size(vision["image_size"])
    writer.add_vision_patch_size(vision["patch_size"])
    writer.add_vision_image_mean([0.48145466, 0.4578275, 0.40821073])
    writer.add_vision_image_std([0.26862954, 0.26130258, 0.27577711])
    writer.add_vision_use_gelu(False)  # CLIP's is the quick one
    writer.add_file_type(_F16)
    tower = "vision_tower.vision_model."
    positions = weights[f"{tower}embeddings.position_embedding.weight"]
    _add(writer, "v.position_embd.weight", np.roll(positions, -1, axis=0).astype(np.float32))
    _add(writer, "v.class_embd", weights[f"{tower}embeddings.class_embedding"])
    _add(writer, "v.patch_embd.weight", weights[f"{tower}embeddings.patch_embedding.weight"])
    for part in ("weight", "bias"):
        _add(writer, f"v.pre_ln.{part}", weights[f"{tower}pre_layrnorm.{part}"])
        for number, name in ((0, "linear_1"), (2, "linear_2")):
            _add(writer, f"mm.{number}.{part}", weights[f"multi_modal_projector.{name}.{part}"])
        for layer in range(vision["num_hidden_layers"]):
            for name, theirs in _IMAGE_NAMES.items():
                values = weights[f"{tower}encoder.layers.{layer}.{name}.{part}"]
                _add(writer, f"v.blk.{layer}.{theirs}.{part}", values)
    _finish(writer)


def _add(writer: Any, name: str, values: NDArray[Any]) -> None:
    """Vectors are fp32 in these files."""
    writer.add_tensor(name, values.astype(np.float32) if values.ndim == 1 else values)


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _quantise(folder: Path, name: str) -> None:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = {"q8_0": _Q8_0, "q4_0": _Q4_0}[name]
    source, out = (str(folder / f"text-{kind}.gguf").encode() for kind in ("f16", name))
    if llama_cpp.llama_model_quantize(source, out, params):
        raise SystemExit(f"error: llama.cpp could not quantise to {name}")


if __name__ == "__main__":
    main()
