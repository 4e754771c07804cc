"""GGUF files as checkpoints: configuration from the metadata, tensors dequantised one by one."""

import math
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from qwen2_book.checkpoint.files import MappedFile
from qwen2_book.config import Qwen2Config
from qwen2_book.errors import CheckpointError, ConfigError
from qwen2_book.gguf_file import GGUFTensor, read_head

# fmt: off
PARTS = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate_inp": "mlp.gate",
    **{f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
    **{f"ffn_{part}_shexp": f"mlp.shared_expert.{part}_proj" for part in ("gate", "up", "down")},
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
}
WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
FIELDS = {
    "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count", "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length", "rope_theta": "rope.freq_base",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon", "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count", "norm_topk_prob": "expert_weights_norm",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
}
# fmt: on
END_OF_TEXT = "<|endoftext|>"
CHUNK = 1 << 20  # numbers dequantised at a time by each thread
EXPERTS = re.compile(r"blk\.(\d+)\.ffn_(gate|up|down)_exps\.weight")
PART = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def read_config(path: Path) -> tuple[Qwen2Config, dict[str, Any], dict[str, GGUFTensor]]:
    """The configuration that the metadata spells, the metadata, and the tensors in the file.

    The head is tied where the file has no output matrix of its own.
    """
    metadata, tensors = read_head(path)
    kind = metadata.get("general.architecture")
    if kind not in ("qwen2", "qwen2moe"):
        raise CheckpointError(
            f"{path}: general.architecture: found {kind!r:.60}, expected 'qwen2' or 'qwen2moe'."
        )
    if (parts := metadata.get("split.count", 1)) not in (0, 1):
        raise CheckpointError(
            f"{path} is one of {parts!r:.20} parts. Merge them into one file first, with "
            "llama.cpp's llama-gguf-split --merge."
        )
    embedding = tensors.get("token_embd.weight")
    values = {
        "model_type": "qwen2_moe" if kind == "qwen2moe" else "qwen2",
        "vocab_size": embedding.shape[0] if embedding and embedding.shape else None,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": "output.weight" not in tensors,
        "rope_scaling": _yarn(metadata, kind),
        "torch_dtype": "bfloat16",
    }
    values |= {
        name: _float(metadata[f"{kind}.{key}"])
        for name, key in FIELDS.items()
        if f"{kind}.{key}" in metadata
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        values[f"{name}_token_id"] = metadata.get(f"tokenizer.ggml.{key}_token_id")
    try:
        config = Qwen2Config.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    key = f"{kind}.rope.dimension_count"
    if (found := metadata.get(key, config.head_dim)) != config.head_dim:
        raise ConfigError(f"{path}: {key}: found {found!r:.60}, expected {config.head_dim}.")
    return config, metadata, tensors


def _yarn(metadata: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """YaRN's settings; llama.cpp's attention factor multiplies the usual 0.1 ln(factor) + 1."""

    def field(name: str) -> Any:
        return _float(metadata.get(f"{kind}.rope.scaling.{name}"))

    if field("type") in (None, "none"):
        return None
    scaling = {
        "type": field("type"),
        "factor": field("factor"),
        "original_max_position_embeddings": field("original_context_length"),
        "beta_fast": field("yarn_beta_fast"),
        "beta_slow": field("yarn_beta_slow"),
    }
    times, factor = field("yarn_attn_factor") or field("attn_factor"), scaling["factor"]
    if isinstance(times, float) and times != 1.0 and isinstance(factor, float) and factor >= 1.0:
        scaling["attention_factor"] = times * (0.1 * math.log(factor) + 1)
    return {name: value for name, value in scaling.items() if value is not None}


def _float(value: Any) -> Any:
    """A float32 as the short decimal that was meant: 9.99999997e-07 is 1e-6."""
    return float(f"{value:.7g}") if isinstance(value, float) else value


def generation_of(metadata: dict[str, Any]) -> dict[str, Any]:
    """Where generation stops: the file's own end token, and the end of a document."""
    eos = metadata.get("tokenizer.ggml.eos_token_id")
    names = metadata.get("tokenizer.ggml.tokens")
    stops = [] if eos is None else [eos]
    if isinstance(names, list) and END_OF_TEXT in names:
        stops.append(names.index(END_OF_TEXT))
    return {"eos_token_id": list(dict.fromkeys(stops))} if stops else {}


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
    """Every tensor's type can be dequantised, and its data lies inside the file, for it alone."""
    size, last = path.stat().st_size, 0
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.start):
        kind = _kind(path, tensor)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        row = tensor.shape[-1] if tensor.shape else 1
        end = tensor.start + math.prod(tensor.shape) // block * block_bytes
        if row % block or end > size or tensor.start < last:
            raise CheckpointError(
                f"{path}: {tensor.name}: {kind.name} of shape {tensor.shape} from byte "
                f"{tensor.start:,} to {end:,} in a file of {size:,}, after a tensor that ends at "
                f"{last:,}; rows come in blocks of {block}. Fetch the file again."
            )
        last = end


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
    file = MappedFile(path)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for tensor in tensors.values():
            values = _dequantised(file, tensor, dtype, pool)
            names = names_of(tensor)
            parts = values.view(len(names), *names[0][1])
            yield {name: part for (name, _), part in zip(names, parts, strict=True)}


def _dequantised(
    file: MappedFile, tensor: GGUFTensor, dtype: torch.dtype, pool: ThreadPoolExecutor
) -> Tensor:
    """A tensor's numbers, some rows at a time, so that little exists twice."""
    kind = GGMLQuantizationType(tensor.kind)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    width = tensor.shape[-1]
    row_bytes = width // block * block_bytes
    result = torch.empty(tensor.shape, dtype=dtype)
    rows, step = result.view(-1, width), max(1, CHUNK // width)
    end = tensor.start + len(rows) * row_bytes
    raw = file.view(tensor.start, end, torch.uint8).view(len(rows), row_bytes).numpy()

    def fill(first: int) -> None:
        with np.errstate(all="ignore"):  # a damaged scale may overflow; NaN logits are named later
            numbers = np.array(dequantize(raw[first : first + step], kind))
        rows[first : first + step] = torch.from_numpy(numbers)

    list(pool.map(fill, range(0, len(rows), step)))
    file.release(tensor.start, end)
    return result
