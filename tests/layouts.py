"""Small configurations of every layout, with random weights that matter."""

import dataclasses

import torch
from tolerances import TOLERANCES as TOLERANCES

from qwen2_book.config import Qwen2Config, RopeScaling
from qwen2_book.model import Qwen2

DENSE = Qwen2Config(
    vocab_size=131,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    rope_theta=10_000.0,
    max_position_embeddings=256,
    dtype="float32",
)
EXPERTS = {
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 48,
}
YARN = RopeScaling(factor=4.0, original_max_position_embeddings=64)
replace = dataclasses.replace

LAYOUTS = {
    "dense tied": replace(DENSE, tie_word_embeddings=True),
    "dense untied": DENSE,
    "multi-head": replace(DENSE, num_key_value_heads=4),
    "multi-query": replace(DENSE, num_key_value_heads=1),
    "wide heads": replace(DENSE, head_dim=24),
    "experts": replace(DENSE, **EXPERTS),
    "experts, renormalised": replace(DENSE, **EXPERTS, norm_topk_prob=True),
    "experts, dense between": replace(
        DENSE, **EXPERTS, decoder_sparse_step=2, mlp_only_layers=(3,)
    ),
    "sliding": replace(DENSE, use_sliding_window=True, sliding_window=7),
    "sliding from layer 2": replace(
        DENSE, use_sliding_window=True, sliding_window=7, max_window_layers=2
    ),
    "sliding by layer types": replace(
        DENSE,
        use_sliding_window=True,
        sliding_window=5,
        layer_types=("sliding_attention", "full_attention") * 2,
    ),
    "sliding experts": replace(
        DENSE, **EXPERTS, use_sliding_window=True, sliding_window=7, max_window_layers=1
    ),
    "yarn": replace(DENSE, rope_scaling=YARN),
    "yarn, own factors": replace(
        DENSE, rope_scaling=replace(YARN, beta_fast=16.0, beta_slow=2.0, attention_factor=1.25)
    ),
}


def random_model(config: Qwen2Config, seed: int = 0) -> Qwen2:
    """Random weights with biases and norms that matter, and logits of order 10."""
    torch.manual_seed(seed)
    model = Qwen2(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.5)
            else:
                parameter.mul_(6)
        model.model.norm.weight.mul_(2)
    return model


def random_ids(batch: int, length: int, config: Qwen2Config, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, config.vocab_size, (batch, length), generator=generator)
