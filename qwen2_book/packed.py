"""Linear layers made fast: several as one product, and matrices packed into 8 or 4 bits."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qwen2_book.rounding import GROUPS, round_int4, round_int8

PACKED_ROWS = 16  # so many rows at most read packed weights; more are quicker with wide ones
BLOCK = 1 << 14  # rows of a matrix that are widened at once
ROUNDED = 1 << 10  # rows that are rounded at once, so that what is made on the way stays near
EMULATED = torch.backends.cpu.get_cpu_capability() == "AVX2"  # bfloat16 products are, and slowly


def product(
    x: Float[Tensor, "*batch in"],
    weight: Float[Tensor, "out in"],
    bias: Float[Tensor, "out"] | None = None,
) -> Float[Tensor, "*batch out"]:
    """x W^T + b; many bfloat16 rows in float32 on processors without a unit for bfloat16."""
    if not (EMULATED and not _few(x) and x.dtype == torch.bfloat16 and x.device.type == "cpu"):
        return F.linear(x, weight, bias)
    wide = x.float()
    y = _joined([F.linear(wide, part.float()) for part in weight.split(BLOCK)], -1)
    return (y if bias is None else y + bias).to(x.dtype)


class FusedLinear(nn.Module):
    """Linear layers that read the same input, as one product with their matrices stacked."""

    def __init__(self, *layers: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.sizes = [layer.out_features for layer in layers]
        weights: list[Tensor] = [layer.weight for layer in layers]
        self.weight = frozen(_joined(weights), dtype)
        self.bias = _stacked_bias(layers, dtype)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return product(x, self.weight, self.bias)

    def split(self, x: Float[Tensor, "*batch in"]) -> tuple[Float[Tensor, "*batch _"], ...]:
        """The output of each layer."""
        return self(x).split(self.sizes, -1)


class PackedLinear(nn.Module):
    """The same with packed matrices for few rows; more rows take the wide ones, unstacked.

    The kernels read bfloat16 inputs, sum in float32 and round to bfloat16. int4 outputs are padded
    to whole blocks of 16. The packed tensors are this module's buffers.
    """

    def __init__(self, *layers: nn.Linear, kind: str, group: int) -> None:
        super().__init__()
        self.sizes, self.kind, self.group = [layer.out_features for layer in layers], kind, group
        self.wide = nn.ParameterList(frozen(layer.weight) for layer in layers)
        self.bias = _stacked_bias(layers, layers[0].weight.dtype)
        weight = _joined([layer.weight.detach() for layer in layers])
        steps, scales = (self._int4 if kind == "int4" else self._int8)(weight)
        self.register_buffer("steps", steps, persistent=False)
        self.register_buffer("scales", scales, persistent=False)

    def _int8(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        steps, scales = zip(*map(round_int8, weight.split(ROUNDED)), strict=True)
        return torch.cat(steps), torch.cat(scales)

    def _int4(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        weight = F.pad(weight, (0, 0, 0, -len(weight) % 16))
        parts = [round_int4(part, self.group) for part in weight.split(ROUNDED)]
        steps, scale, zero = (torch.cat(found) for found in zip(*parts, strict=True))
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(steps.int(), 1)
        return packed, torch.stack((scale.T, zero.T), -1).contiguous()

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return self._packed(x) if _few(x) else _joined(self.split(x), -1)

    def split(self, x: Float[Tensor, "*batch in"]) -> tuple[Float[Tensor, "*batch _"], ...]:
        """The output of each layer."""
        if _few(x):
            return self._packed(x).split(self.sizes, -1)
        biases = [None] * len(self.sizes) if self.bias is None else self.bias.split(self.sizes)
        return tuple(product(x, w, b) for w, b in zip(self.wide, biases, strict=True))

    def _packed(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2).bfloat16().contiguous()
        if self.kind == "int8":
            y = torch.ops.aten._weight_int8pack_mm(rows, self.steps, self.scales)
        else:
            mm = torch.ops.aten._weight_int4pack_mm_for_cpu
            y = mm(rows, self.steps, self.group, self.scales)[:, : sum(self.sizes)]
        y = y.to(x.dtype).unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias


def pack(*layers: nn.Linear, kind: str, group: int) -> FusedLinear | PackedLinear:
    """Packed as asked for, or wider where the rows do not fit the kernels."""
    width = layers[0].in_features
    if kind == "int4":
        group = next((size for size in GROUPS[::-1] if size <= group and not width % size), 0)
        kind = kind if group else "int8"
    if width % 16:
        return FusedLinear(*layers, dtype=layers[0].weight.dtype)
    return PackedLinear(*layers, kind=kind, group=group)


def _few(x: Tensor) -> bool:
    return x.numel() <= PACKED_ROWS * x.shape[-1]


def _joined(parts: tuple[Tensor, ...] | list[Tensor], dim: int = 0) -> Tensor:
    """Stacked; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def frozen(weight: Tensor, dtype: torch.dtype | None = None) -> nn.Parameter:
    """The same memory where the dtype is right, without gradients."""
    return nn.Parameter(weight.detach().to(dtype or weight.dtype), requires_grad=False)


def _stacked_bias(layers: tuple[nn.Linear, ...], dtype: torch.dtype) -> nn.Parameter | None:
    biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
    return frozen(_joined(biases), dtype) if biases else None
