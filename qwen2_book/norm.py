"""RMSNorm: scale a vector to unit root mean square, then by a learnt weight."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root-mean-square normalisation (arXiv:1910.07467), no mean taken off, no bias.

    The mean square and the scaling are computed in float32; the result is cast back to the input's
    dtype before the weight is applied, as the released model does. `eps` stands inside the root.
    """

    def __init__(self, hidden_size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(x.dtype)
