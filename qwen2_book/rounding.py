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
    steps = (weight.float() / _divisor(scale)[:, None]).round().clamp(-127, 127)
    return steps.to(torch.int8), scale


def unround_int8(
    steps: Int8[Tensor, "out in"], scale: BFloat16[Tensor, "out"]
) -> Float[Tensor, "out in"]:
    """The matrix, float32, that `round_int8` stands for."""
    return steps.float() * scale.float()[:, None]


def round_int4(
    weight: Float[Tensor, "out in"], group: int = 32, refits: int = 2
) -> tuple[UInt8[Tensor, "out in"], BFloat16[Tensor, "out groups"], BFloat16[Tensor, "out groups"]]:
    """Whole numbers from 0 to 15, a scale and a zero for each `group` neighbours of a row.

    weight ~ (steps - 8) * scale + zero. At first the 16 levels span the group from its least to
    its greatest weight. Each refit then puts the levels where they fit the chosen steps best, the
    line of least squares through the pairs (step, weight), and chooses the steps anew: as Lloyd's
    algorithm does (1982), with evenly spaced levels. Raises ValueError where a row is no whole
    number of groups.
    """
    if weight.shape[1] % group:
        raise ValueError(f"a row of {weight.shape[1]} weights is no whole number of {group}s.")
    values = weight.float().unflatten(1, (-1, group))
    low, high = values.aminmax(dim=2)
    scale = (high - low) / 15
    zero = low + 8 * scale
    mean = values.mean(2)
    for _ in range(refits):
        steps = _nearest(values, scale, zero) - 8
        middle = steps.mean(2)
        spread = steps.square().mean(2) - middle.square()
        shared = (steps * values).mean(2) - middle * mean
        scale = torch.where(spread > 0, shared / _divisor(spread), scale)
        zero = mean - scale * middle
    scale, zero = scale.bfloat16(), zero.bfloat16()
    return _nearest(values, scale, zero).flatten(1).to(torch.uint8), scale, zero


def unround_int4(
    steps: UInt8[Tensor, "out in"],
    scale: BFloat16[Tensor, "out groups"],
    zero: BFloat16[Tensor, "out groups"],
) -> Float[Tensor, "out in"]:
    """The matrix, float32, that `round_int4` stands for."""
    values = steps.float().unflatten(1, (scale.shape[1], -1)) - 8
    return (values * scale.float()[..., None] + zero.float()[..., None]).flatten(1)


def _nearest(values: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """The nearest of the 16 steps to each value of a group."""
    steps = (values - zero.float()[..., None]) / _divisor(scale)[..., None]
    return steps.add_(8).round_().clamp_(0, 15)


def _divisor(scale: Tensor) -> Tensor:
    """The scale, float32; 1 where it is 0, as in a row or a group of equal weights."""
    return torch.where(scale == 0, 1.0, scale.float())
