"""Linear layers made fast: several as one product, and matrices packed into 8 or 4 bits.

What a processor does well decides the kernels: `CAPABILITY` and `WHOLE` say what was found here.
"""

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qwen2_book.rounding import GROUPS, round_int4, round_int8

PACKED_ROWS = 16  # so many rows at most read packed weights; more are quicker with wide ones
BLOCK = 1 << 14  # rows of a matrix that are widened at once
ROUNDED = 1 << 10  # rows that are rounded at once, so that what is made on the way stays near
LARGE = 1 << 22  # weights of a matrix from which whole numbers are quicker
TINY = 1e-30  # the largest number of a row that holds nothing
ROWS = 512  # rows of a product at once, so that what it writes is still near when it is read

CAPABILITY = torch.backends.cpu.get_cpu_capability()
EMULATED = CAPABILITY == "AVX2"  # bfloat16 products are, and slowly
LAID_OUT = CAPABILITY == "AVX512" and torch.backends.mkldnn.is_available()  # by oneDNN, ahead
VNNI = CAPABILITY == "AVX512" and torch.cpu._is_vnni_supported()  # multiplies 8-bit whole numbers
AMX = CAPABILITY == "AVX512" and torch.cpu._is_amx_tile_supported()  # bfloat16 by whole tiles
WHOLE_ROWS = 16 if AMX else 64  # so many rows at most are quicker in whole numbers
WHOLE = (  # FBGEMM is there, which multiplies whole numbers
    "fbgemm" in torch.backends.quantized.supported_engines
    and CAPABILITY in ("AVX2", "AVX512")
    and hasattr(torch, "_make_per_channel_quantized_tensor")
)


def product(
    x: Float[Tensor, "*batch in"],
    weight: Float[Tensor, "out in"],
    bias: Float[Tensor, "out"] | None = None,
) -> Float[Tensor, "*batch out"]:
    """x W^T + b; many bfloat16 rows in float32 on processors without a unit for bfloat16."""
    if not (
        EMULATED
        and x.numel() > PACKED_ROWS * x.shape[-1]
        and x.dtype == torch.bfloat16
        and x.device.type == "cpu"
    ):
        rows = x.reshape(-1, x.shape[-1])  # of one row of many it would copy the matrix instead
        return F.linear(rows, weight, bias).view(*x.shape[:-1], -1)
    wide = x.float()
    y = _joined([F.linear(wide, part.float()) for part in weight.split(BLOCK)], -1)
    return (y if bias is None else y + bias).to(x.dtype)


class FusedLinear(nn.Module):
    """Linear layers that read the same input, as one product with their matrices stacked.

    A bfloat16 matrix is stored in the order in which oneDNN's kernels read it, where they have one
    (`F.linear` would bring it into that order in every call).
    """

    def __init__(self, *layers: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.sizes = [layer.out_features for layer in layers]
        weights: list[Tensor] = [layer.weight for layer in layers]
        self.weight = frozen(_joined(weights), dtype)
        self.bias = _stacked_bias(layers, dtype)
        self.laid_out = LAID_OUT and dtype == torch.bfloat16 and self.weight.device.type == "cpu"
        if self.laid_out:
            self.weight = frozen(torch.ops.mkldnn._reorder_linear_weight(self.weight, ROWS))

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        if not self.laid_out:
            return product(x, self.weight, self.bias)
        return self._in_order((x,), ("none", [], ""))

    def silu(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """SiLU of the output; the kernel applies it before it writes. For matrices laid out."""
        return self._in_order((x,), ("swish", [], ""))

    def times(
        self, x: Float[Tensor, "*batch in"], factor: Float[Tensor, "*batch out"]
    ) -> Float[Tensor, "*batch out"]:
        """The output times a factor, in the same way."""
        return self._in_order((x, factor), ("mul",))

    def _in_order(self, before: tuple[Any, ...], after: tuple[Any, ...]) -> Tensor:
        """By oneDNN's kernel, aside from torch.compile, which has its own ideas of it."""
        op, args = torch.ops.mkldnn._linear_pointwise, (*before, self.weight, self.bias, *after)
        return _aside(op, *args) if torch.compiler.is_compiling() else op(*args)

    def split(self, x: Float[Tensor, "*batch in"]) -> tuple[Float[Tensor, "*batch _"], ...]:
        """The output of each layer."""
        return self(x).split(self.sizes, -1)


class PackedLinear(nn.Module):
    """The same with packed matrices for few rows; more rows take the wide ones, unstacked.

    The kernels read bfloat16 inputs, sum in float32 and round to bfloat16. int4 outputs are padded
    to whole blocks of 16. `nbytes` is what a pass of few rows reads.
    """

    few, laid_out = PACKED_ROWS, False

    def __init__(self, *layers: nn.Linear, kind: str, group: int = 0) -> None:
        super().__init__()
        self.sizes, self.kind, self.group = [layer.out_features for layer in layers], kind, group
        self.size = sum(self.sizes)
        self.wide = nn.ParameterList(frozen(layer.weight) for layer in layers)
        bias = _stacked_bias(layers, layers[0].weight.dtype)
        self.bias = None if bias is None else bias.detach()  # no parameter: looked up faster
        self._pack(_joined([layer.weight.detach() for layer in layers]))

    def _pack(self, weight: Tensor) -> None:
        if self.kind == "int8":
            steps, scales = _round_rows(weight)
        else:
            weight = F.pad(weight, (0, 0, 0, -len(weight) % 16))
            parts = [round_int4(part, self.group) for part in weight.split(ROUNDED)]
            steps, scale, zero = (torch.cat(found) for found in zip(*parts, strict=True))
            steps = torch._convert_weight_to_int4pack_for_cpu(steps.int(), 1)
            scales = torch.stack((scale.T, zero.T), -1).contiguous()
        self.steps, self.scales = steps, scales
        self.nbytes = steps.nbytes + scales.nbytes

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return self._packed(x) if self._are_few(x) else _joined(self.split(x), -1)

    def split(self, x: Float[Tensor, "*batch in"]) -> tuple[Float[Tensor, "*batch _"], ...]:
        """The output of each layer."""
        if self._are_few(x):
            return torch.split_with_sizes(self._packed(x), self.sizes, -1)
        biases = [None] * len(self.sizes) if self.bias is None else self.bias.split(self.sizes)
        return tuple(product(x, w, b) for w, b in zip(self.wide, biases, strict=True))

    def _are_few(self, x: Tensor) -> bool:
        return x.numel() <= self.few * x.shape[-1]

    def _packed(self, x: Tensor) -> Tensor:
        y = self._product(x.reshape(-1, x.shape[-1]))
        y = y if self.bias is None else y.add_(self.bias)
        y = y if y.dtype == x.dtype else y.to(x.dtype)
        return y.view(*x.shape[:-1], self.size)

    def _product(self, rows: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        rows = rows if rows.dtype == torch.bfloat16 else rows.bfloat16()
        steps, scales = self.steps, self.scales
        if self.kind == "int8":
            return torch._weight_int8pack_mm(rows, steps, scales)
        y = torch._weight_int4pack_mm_for_cpu(rows, steps, self.group, scales)
        return y if y.shape[1] == self.size else y[:, : self.size].contiguous()


class WholeLinear(PackedLinear):
    """The same in whole numbers: int8 matrices times int8 rows, summed in int32.

    A row is rounded twice, the second time what the first has left over, so that it passes as two
    rows of whole numbers, with 16 bits in all and nearly nothing lost. Few rows wait for the matrix
    and not for arithmetic, so the second costs little. Rows go in without a sign, as processors
    multiply them; those without VNNI add two products in 16 bits, which hold 8 bits times 7.
    """

    few = WHOLE_ROWS

    def _pack(self, weight: Tensor) -> None:
        steps, scales = _round_rows(weight)
        self.most = 127 if VNNI else 63
        scales, zeros = scales.float() / self.most, torch.zeros(len(steps), dtype=torch.long)
        self.nbytes = steps.nbytes + scales.nbytes
        before, torch.backends.quantized.engine = torch.backends.quantized.engine, "fbgemm"
        with warnings.catch_warnings():  # PyTorch means to drop such tensors (issue 184982)
            warnings.simplefilter("ignore")
            weight = torch._make_per_channel_quantized_tensor(steps, scales.double(), zeros, 0)
        self.packed = torch.ops.quantized.linear_prepack(weight, None)
        torch.backends.quantized.engine = before

    def _product(self, rows: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        rows = rows.float()
        largest = rows.abs().amax(1, keepdim=True).clamp_(min=TINY)
        steps = rows * (self.most / largest)
        high = steps.round()
        low = (steps - high).mul_(2 * self.most)  # between -most and most, as the high ones
        op = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32  # rounds for itself
        first, second = op(torch.cat((high, low)), 1.0, self.most + 1, self.packed).chunk(2)
        return first.add_(second, alpha=0.5 / self.most).mul_(largest)


def pack(*layers: nn.Linear, kind: str, group: int) -> FusedLinear | PackedLinear:
    """Packed as asked for, or wider where the rows do not fit the kernels."""
    width = layers[0].in_features
    if kind == "int4":
        group = next((size for size in GROUPS[::-1] if size <= group and not width % size), 0)
        kind = kind if group else "int8"
    size = width * sum(layer.out_features for layer in layers)
    if kind == "int8" and WHOLE and size >= LARGE:
        return WholeLinear(*layers, kind=kind)
    if width % 16:
        return FusedLinear(*layers, dtype=layers[0].weight.dtype)
    return PackedLinear(*layers, kind=kind, group=group)


def _round_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 steps and a scale for each row, of so many rows at a time that they stay near."""
    steps, scales = zip(*map(round_int8, weight.split(ROUNDED)), strict=True)
    return torch.cat(steps), torch.cat(scales)


def _joined(parts: tuple[Tensor, ...] | list[Tensor], dim: int = 0) -> Tensor:
    """Stacked; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def frozen(weight: Tensor, dtype: torch.dtype | None = None) -> nn.Parameter:
    """The same memory where the dtype is right, without gradients."""
    return nn.Parameter(weight.detach().to(dtype or weight.dtype), requires_grad=False)


def _stacked_bias(layers: tuple[nn.Linear, ...], dtype: torch.dtype) -> nn.Parameter | None:
    biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
    return frozen(_joined(biases), dtype) if biases else None


@torch.compiler.disable
def _aside(op: Any, *args: Any) -> Tensor:
    return op(*args)
