"""GGUF files as checkpoints: configuration from the metadata, tensors dequantised one by one."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from qwen2_book.config import Qwen2Config
from qwen2_book.errors import CheckpointError, ConfigError
from qwen2_book.gguf_file import GGUFTensor, read_head

PARTS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate_inp": "mlp.gate",
    **{f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
    **{f"ffn_{part}_shexp": f"mlp.shared_expert.{part}_proj" for part in ("gate", "up", "down")},
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
}
WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
EXPERTS = re.compile(r"blk\.(\d+)\.ffn_(gate|up|down)_exps\.weight")
PART = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def read_config(path: Path) -> tuple[Qwen2Config, dict[str, GGUFTensor]]:
    """The configuration that the metadata spells, and the tensors that the file lists.

    The head is tied where the file has no output matrix of its own.
    """
    metadata, tensors = read_head(path)
    kind = metadata.get("general.architecture")
    if kind not in ("qwen2", "qwen2moe"):
        raise CheckpointError(
            f"{path}: general.architecture: found {kind!r:.60}, expected 'qwen2' or 'qwen2moe'."
        )

    def field(name: str, default: Any = None) -> Any:
        return metadata.get(f"{kind}.{name}", default)

    embedding = tensors.get("token_embd.weight")
    values = {
        "model_type": "qwen2_moe" if kind == "qwen2moe" else "qwen2",
        "vocab_size": embedding.shape[0] if embedding and embedding.shape else None,
        "hidden_size": field("embedding_length"),
        "intermediate_size": field("feed_forward_length"),
        "num_hidden_layers": field("block_count"),
        "num_attention_heads": field("attention.head_count"),
        "num_key_value_heads": field("attention.head_count_kv"),
        "head_dim": field("attention.key_length"),
        "max_position_embeddings": field("context_length", 32_768),
        "rms_norm_eps": _float(field("attention.layer_norm_rms_epsilon", 1e-6)),
        "rope_theta": field("rope.freq_base", 10_000.0),
        "tie_word_embeddings": "output.weight" not in tensors,
        "num_experts": field("expert_count"),
        "num_experts_per_tok": field("expert_used_count"),
        "moe_intermediate_size": field("expert_feed_forward_length"),
        "shared_expert_intermediate_size": field("expert_shared_feed_forward_length"),
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "bfloat16",
    }
    if field("rope.scaling.type") not in (None, "none"):
        values["rope_scaling"] = {
            "type": field("rope.scaling.type"),
            "factor": field("rope.scaling.factor"),
            "original_max_position_embeddings": field("rope.scaling.original_context_length"),
        }
    try:
        return Qwen2Config.from_dict(values), tensors
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _float(value: Any) -> Any:
    """A float32 as the short decimal that was meant: 9.99999997e-07 is 1e-6."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def names_of(tensor: GGUFTensor) -> list[tuple[str, tuple[int, ...]]]:
    """The checkpoint names and shapes that a GGUF tensor holds: one, or one for each expert."""
    if tensor.name in WHOLE:
        return [(WHOLE[tensor.name], tensor.shape)]
    if found := EXPERTS.fullmatch(tensor.name):
        layer, part = found.groups()
        name = f"model.layers.{layer}.mlp.experts.%d.{part}_proj.weight"
        count = tensor.shape[0] if tensor.shape and tensor.shape[0] <= 4096 else 0
        return [(name % expert, tensor.shape[1:]) for expert in range(count)]
    found = PART.fullmatch(tensor.name)
    if not found or found[2] not in PARTS:
        return [(tensor.name, tensor.shape)]  # unknown: the check of names will say so
    name = f"model.layers.{found[1]}.{PARTS[found[2]]}.{found[3]}"
    if found[2] == "ffn_gate_inp_shexp" and len(tensor.shape) == 1:
        return [(name, (1, *tensor.shape))]
    return [(name, tensor.shape)]


def check_data(path: Path, tensors: dict[str, GGUFTensor]) -> None:
    """Every tensor's type can be dequantised, and its data lies inside the file."""
    size = path.stat().st_size
    for tensor in tensors.values():
        kind = _kind(path, tensor)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        row = tensor.shape[-1] if tensor.shape else 1
        end = tensor.start + int(np.prod(tensor.shape, dtype=object)) // block * block_bytes
        if row % block or end > size:
            raise CheckpointError(
                f"{path}: {tensor.name}: {kind.name} of shape {tensor.shape} ends at byte {end:,} "
                f"in a file of {size:,}; rows come in blocks of {block}. Fetch the file again."
            )


def _kind(path: Path, tensor: GGUFTensor) -> GGMLQuantizationType:
    try:
        kind = GGMLQuantizationType(tensor.kind)
        _, block_bytes = GGML_QUANT_SIZES[kind]
        dequantize(np.zeros((1, block_bytes), dtype=np.uint8), kind)
        return kind
    except (ValueError, KeyError, NotImplementedError):
        raise CheckpointError(
            f"{path}: {tensor.name}: type {tensor.kind} cannot be dequantised here. Take a file "
            "with Q8_0, K-quants, F16 or BF16."
        ) from None


def read_tensors(
    path: Path, tensors: dict[str, GGUFTensor], dtype: torch.dtype
) -> Iterator[dict[str, Tensor]]:
    """Each GGUF tensor dequantised in turn, by its checkpoint names."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    for tensor in tensors.values():
        kind = GGMLQuantizationType(tensor.kind)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        rows = int(np.prod(tensor.shape[:-1]))
        row_bytes = tensor.shape[-1] // block * block_bytes
        raw = data[tensor.start : tensor.start + rows * row_bytes].reshape(rows, row_bytes)
        values = torch.from_numpy(np.array(dequantize(raw, kind))).to(dtype)
        names = names_of(tensor)
        parts = values.view(len(names), *names[0][1])
        yield {name: part for (name, _), part in zip(names, parts, strict=True)}
