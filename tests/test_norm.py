"""RMSNorm against its formula; equality with transformers stands in test_parity."""

import pytest
import torch

from qwen2_book.norm import RMSNorm


def by_formula(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    rows = [row / (sum(float(v) ** 2 for v in row) / len(row) + eps) ** 0.5 for row in x.double()]
    return torch.stack(rows) * weight.double()


@pytest.mark.parametrize("eps", [1e-6, 1e-5, 0.5])
def test_the_formula(eps):
    torch.manual_seed(0)
    norm, x = RMSNorm(24, eps), torch.randn(5, 24)
    norm.weight.data.normal_()
    expected = by_formula(x, norm.weight, eps).float()
    torch.testing.assert_close(norm(x), expected, atol=1e-6, rtol=1e-5)


def test_eps_stands_inside_the_root():
    x = torch.full((1, 4), 1e-3)
    expected = 1e-3 / (1e-6 + 1e-6) ** 0.5  # outside the root it would be 0.999
    torch.testing.assert_close(RMSNorm(4, 1e-6)(x), torch.full((1, 4), expected))
    assert torch.equal(RMSNorm(4)(torch.zeros(1, 4)), torch.zeros(1, 4))


def test_no_mean_is_taken_off():
    torch.testing.assert_close(RMSNorm(8)(torch.full((1, 8), 5.0)), torch.ones(1, 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_square_is_taken_in_float32(dtype):
    """300 squared is beyond float16; the sum of many squares is beyond bfloat16's precision."""
    x = torch.full((1, 4096), 300.0, dtype=dtype)
    x[:, ::2] *= -1
    out = RMSNorm(4096).to(dtype)(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), x.float() / 300)


def test_it_is_cast_before_the_weight_is_applied():
    """As the released model does: two roundings in bfloat16, which differ from one."""
    torch.manual_seed(0)
    norm, x = RMSNorm(512).to(torch.bfloat16), torch.randn(9, 512).to(torch.bfloat16)
    norm.weight.data.normal_()
    wide = x.float() * (x.float().square().mean(-1, keepdim=True) + norm.eps).rsqrt()
    assert torch.equal(norm(x), norm.weight * wide.to(torch.bfloat16))
    assert not torch.equal(norm(x), (norm.weight.float() * wide).to(torch.bfloat16))
