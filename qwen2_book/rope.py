"""Rotary positions: turn pairs of dimensions by an angle proportional to the position."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from qwen2_book.config import Qwen2Config


def inverse_frequencies(config: Qwen2Config) -> tuple[Float[Tensor, "pairs"], float]:
    """Radians per position for each pair of dimensions, and the factor on cos and sin.

    Plain RoPE (arXiv:2104.09864): theta^(-2i/d) and 1. With YaRN (arXiv:2309.00071, section 3):
    pairs that turn more than `beta_fast` times within the original length are kept, those that
    turn less than `beta_slow` times are slowed by `factor`, those between are blended; the factor
    on cos and sin is 0.1 ln(factor) + 1, so attention logits scale by its square.
    """
    dim, theta = config.head_dim, config.rope_theta
    powers = theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim)
    plain = 1.0 / powers
    yarn = config.rope_scaling
    if yarn is None:
        return plain, 1.0

    def pair_that_turns(times: float) -> float:
        length = yarn.original_max_position_embeddings
        return dim * math.log(length / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_that_turns(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(yarn.beta_slow)), dim - 1)
    pair = torch.arange(dim // 2, dtype=torch.float32, device="cpu")
    kept = 1 - ((pair - low) / ((high - low) or 0.001)).clamp(0, 1)
    slowed = 1.0 / (yarn.factor * powers)
    factor = yarn.attention_factor or 0.1 * math.log(yarn.factor) + 1
    return slowed * (1 - kept) + plain * kept, factor


class RotaryEmbedding(nn.Module):
    """Positions in, cosines and sines out: float32, (batch, seq, head_dim / 2) each.

    The frequencies are no parameter and no buffer, so a model built on `meta` has them too.
    """

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.frequencies, self.factor = inverse_frequencies(config)

    def forward(
        self, positions: Int[Tensor, "batch seq"]
    ) -> tuple[Float[Tensor, "batch seq pairs"], Float[Tensor, "batch seq pairs"]]:
        frequencies = self.frequencies.to(positions.device)
        if not frequencies.is_meta:  # on meta there are no numbers to keep
            self.frequencies = frequencies
        angles = positions[..., None].float() * frequencies
        return angles.cos() * self.factor, angles.sin() * self.factor


def rotate(
    x: Float[Tensor, "batch heads seq dim"],
    cos: Float[Tensor, "#batch seq pairs"],
    sin: Float[Tensor, "#batch seq pairs"],
) -> Float[Tensor, "batch heads seq dim"]:
    """Turn pair i = (x_i, x_{i + dim/2}) by its angle: the half-split layout of the weights."""
    cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
