"""Weights in a few bits: each a small whole number, with a scale for its row or its group.

Pure functions on matrices (out, in). Scales and zeros come rounded to bfloat16, as the packed
kernels read them, and the whole numbers are chosen for these rounded values.
"""

import torch
from jaxtyping import BFloat16, Float, Int8, UInt8
from torch import Tensor

GROUPS = (32, 64, 128, 256)  # group sizes that PyTorch's int4 kernels know


def round_int8(
    weight: Float[Tensor, "out in"],
) -> tuple[Int8[Tensor, "out in"], BFloat16[Tensor, "out"]]:
    """Whole numbers from -127 to 127 and a scale for each row: weight ~ steps * scale."""
    scale = (weight.float().abs().amax(1) / 127).bfloat16()
    steps = (weight.float() / _divisor(scale)[:, None]).round_().clamp_(-127, 127)
    return steps.to(torch.int8), scale


def unround_int8(
    steps: Int8[Tensor, "out in"], scale: BFloat16[Tensor, "out"]
) -> Float[Tensor, "out in"]:
    """The matrix, float32, that `round_int8` stands for."""
    return steps.float() * scale.float()[:, None]


def round_int4(
    weight: Float[Tensor, "out in"], group: int = 32
) -> tuple[UInt8[Tensor, "out in"], BFloat16[Tensor, "out groups"], BFloat16[Tensor, "out groups"]]:
    """Whole numbers from 0 to 15, a scale and a zero for each `group` neighbours of a row.

    weight ~ (steps - 8) * scale + zero. The 16 levels span the group from its least to its greatest
    weight, so the largest weights are kept. (Levels of least squares have a seventh less squared
    error, and yet raised the perplexity of the 0.5B more than twice as much.)
    Raises ValueError where a row is no whole number of groups.
    """
    if weight.shape[1] % group:
        raise ValueError(f"a row of {weight.shape[1]} weights is no whole number of {group}s.")
    values = weight.float().unflatten(1, (-1, group))
    low, high = values.amin(2), values.amax(2)
    scale = ((high - low) / 15).bfloat16()
    zero = (low + 8 * scale.float()).bfloat16()
    steps = (values - zero.float()[..., None]).div_(_divisor(scale)[..., None])
    return steps.add_(8).round_().clamp_(0, 15).flatten(1).to(torch.uint8), scale, zero


def unround_int4(
    steps: UInt8[Tensor, "out in"],
    scale: BFloat16[Tensor, "out groups"],
    zero: BFloat16[Tensor, "out groups"],
) -> Float[Tensor, "out in"]:
    """The matrix, float32, that `round_int4` stands for."""
    values = steps.float().unflatten(1, (scale.shape[1], -1)) - 8
    return (values * scale.float()[..., None] + zero.float()[..., None]).flatten(1)


def _divisor(scale: Tensor) -> Tensor:
    """The scale, float32; 1 where it is 0, as in a row or a group of equal weights."""
    return torch.where(scale == 0, 1.0, scale.float())
