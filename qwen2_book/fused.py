"""The parts of a decoder layer with fewer calls: norm, rotation, attention, SwiGLU.

They are made from the plain parts, read the same weights and give the same numbers.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from qwen2_book.attention import GroupedQueryAttention, attend
from qwen2_book.cache import KVCache
from qwen2_book.feedforward import SwiGLU
from qwen2_book.norm import RMSNorm
from qwen2_book.packed import ROWS, FusedLinear, PackedLinear, frozen
from qwen2_book.rope import RotaryEmbedding
from qwen2_book.window import Band, Mask, banded_attention

Fuse = Callable[..., FusedLinear | PackedLinear]


class FusedNorm(RMSNorm):
    """RMSNorm in six calls; on a CPU, PyTorch's own function makes more inside."""

    def __init__(self, plain: RMSNorm, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.weight, self.eps = frozen(plain.weight, dtype), plain.eps
        self.under_root = torch.tensor(plain.eps, device=self.weight.device)

    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = torch.addcmul(self.under_root, length, length, value=1 / x.shape[-1]).rsqrt_()
        return (x * scale).to(x.dtype).mul_(self.weight)


class FusedRotary(nn.Module):
    """Cosines and sines for whole heads: a turn is then x cos + (x, its halves swapped) sin."""

    def __init__(self, plain: RotaryEmbedding) -> None:
        super().__init__()
        self.plain = plain

    def forward(
        self, positions: Int[Tensor, "batch seq"]
    ) -> tuple[Float[Tensor, "batch seq dim"], Float[Tensor, "batch seq dim"]]:
        cos, sin = self.plain(positions)
        return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)


class FusedAttention(nn.Module):
    """Grouped-query attention with one product for queries, keys and values, turned together."""

    def __init__(self, plain: GroupedQueryAttention, fuse: Fuse) -> None:
        super().__init__()
        self.layer, self.head_dim = plain.layer, plain.head_dim
        self.qkv, self.out = fuse(plain.q_proj, plain.k_proj, plain.v_proj), fuse(plain.o_proj)
        self.heads = [size // plain.head_dim for size in self.qkv.sizes]

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        cos: Float[Tensor, "#batch seq dim"],
        sin: Float[Tensor, "#batch seq dim"],
        mask: Mask = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq hidden"]:
        query, key, value = self._turned(x, cos, sin)
        if cache is not None:
            key, value = cache.update(self.layer, key, value)
        if isinstance(mask, Band):
            heads = banded_attention(query, key, value, *mask)
        else:
            heads = attend(query, key, value, mask)
        return self.out(heads.transpose(1, 2).flatten(2))

    def query_key(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """Rotated queries and keys, as `GroupedQueryAttention` has them; for `trace`."""
        query, key, _ = self._turned(x, cos, sin)
        return query, key

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = self.qkv(x).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
        queries, keys, values = self.heads
        straight, value = torch.split_with_sizes(heads, (queries + keys, values), 1)
        swapped = straight.roll(self.head_dim // 2, -1)
        turned = torch.addcmul(straight * cos[:, None], swapped, sin[:, None])
        query, key = torch.split_with_sizes(turned, (queries, keys), 1)
        return query, key, value


class FusedSwiGLU(nn.Module):
    """SwiGLU with one product for the gate and the branch that it scales.

    Or with two of which the first ends with the SiLU and the second with the scaling, where there
    are kernels for that.
    """

    gate: Any
    up: Any

    def __init__(self, plain: SwiGLU, fuse: Fuse) -> None:
        super().__init__()
        self.down = fuse(plain.down_proj)
        if self.down.laid_out:
            self.gate, self.up = fuse(plain.gate_proj), fuse(plain.up_proj)
        else:
            self.gate_up = fuse(plain.gate_proj, plain.up_proj)

    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        if x.numel() <= ROWS * x.shape[-1]:
            return self._block(x)
        return torch.cat([self._block(rows) for rows in x.flatten(0, -2).split(ROWS)]).view_as(x)

    def _block(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        if self.down.laid_out:
            return self.down(self.up.times(x, self.gate.silu(x)))
        gate, up = self.gate_up.split(x)
        return self.down(F.silu(gate).mul_(up))
