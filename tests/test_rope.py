"""Rotary positions against complex numbers, YaRN against its published numbers."""

import cmath
import math

import pytest
import torch
from layouts import DENSE, replace

from qwen2_book.config import Qwen2Config, RopeScaling
from qwen2_book.rope import RotaryEmbedding, inverse_frequencies, rotate

CONFIG = replace(DENSE, head_dim=16)


def turned(x: torch.Tensor, positions: list[int], config: Qwen2Config = CONFIG) -> torch.Tensor:
    """x (seq, head_dim), turned by the package."""
    cos, sin = RotaryEmbedding(config)(torch.tensor([positions]))
    return rotate(x[None, None], cos, sin)[0, 0]


def test_pairs_are_half_a_head_apart():
    """Pair i is (x_i, x_{i + d/2}), not (x_2i, x_2i+1): it turns like a complex number."""
    torch.manual_seed(0)
    x, positions = torch.randn(4, 16), [0, 1, 7, 250]
    out = turned(x, positions)
    for row, position in enumerate(positions):
        for i in range(8):
            angle = position * CONFIG.rope_theta ** (-2 * i / 16)
            z = complex(x[row, i], x[row, i + 8]) * cmath.exp(1j * angle)
            assert abs(z - complex(out[row, i], out[row, i + 8])) < 1e-5


def test_only_the_distance_counts():
    torch.manual_seed(0)
    query, key = torch.randn(2, 16)
    for distance in (0, 1, 5, 40):
        scores = [
            float(turned(query[None], [start + distance]) @ turned(key[None], [start]).T)
            for start in (0, 3, 100, 1000)
        ]
        assert max(scores) - min(scores) < 2e-4, distance
    near, far = (float(turned(query[None], [d]) @ turned(key[None], [0]).T) for d in (1, 40))
    assert abs(near - far) > 0.01


def test_lengths_are_kept_and_position_0_is_not_turned():
    x = torch.randn(3, 16)
    out = turned(x, [0, 5, 99])
    assert torch.equal(out[0], x[0])
    torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_angles_are_float32_at_position_30000(dtype):
    """In half precision 30,000 radians would be off by more than a turn."""
    config = replace(CONFIG, head_dim=128, rope_theta=1e6)
    rotary = RotaryEmbedding(config).to(dtype)
    cos, sin = rotary(torch.tensor([[29_999, 30_000]]))
    assert cos.dtype == sin.dtype == torch.float32
    exact = torch.arange(0, 128, 2, dtype=torch.float64) / -128
    angles = torch.tensor([29_999.0, 30_000.0], dtype=torch.float64)[:, None] * 1e6**exact
    assert (cos[0] - angles.cos()).abs().max() < 5e-3
    assert (sin[0] - angles.sin()).abs().max() < 5e-3
    x = torch.randn(1, 2, 2, 128).to(dtype)
    assert rotate(x, cos, sin).dtype == dtype


def test_frequencies():
    frequencies, factor = inverse_frequencies(replace(CONFIG, rope_theta=1e6, head_dim=64))
    assert factor == 1.0 and len(frequencies) == 32
    expected = [1e6 ** (-2 * i / 64) for i in range(32)]
    torch.testing.assert_close(frequencies, torch.tensor(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("head_dim", "low", "high"), [(128, 23, 40), (64, 11, 20)])
def test_yarn_pair_by_pair(head_dim, low, high):
    """Factor 4 from 32,768 with base 1e6: pairs to `low` kept, from `high` on divided by 4."""
    for turns, edge, rounded in ((32, low, math.floor), (1, high, math.ceil)):
        dim = head_dim * math.log(32_768 / (2 * math.pi * turns)) / (2 * math.log(1e6))
        assert rounded(dim) == edge
    config = replace(
        CONFIG, head_dim=head_dim, rope_theta=1e6, rope_scaling=RopeScaling(4.0, 32_768)
    )
    frequencies, factor = inverse_frequencies(config)
    for i, frequency in enumerate(frequencies.tolist()):
        slowed = min(max((i - low) / (high - low), 0), 1)
        plain = 1e6 ** (-2 * i / head_dim)
        assert frequency == pytest.approx(plain * (1 - slowed) + plain / 4 * slowed, rel=1e-5)
    assert factor == pytest.approx(0.1 * math.log(4) + 1, rel=1e-12)


def test_yarn_scales_scores_by_the_square_of_its_factor():
    config = replace(CONFIG, rope_scaling=RopeScaling(4.0, 64, attention_factor=1.5))
    x = torch.randn(1, 16)
    score = turned(x, [0], config) @ turned(x, [0], config).T
    torch.testing.assert_close(score, x @ x.T * 2.25)


def test_a_rehearsal_on_meta_keeps_the_frequencies():
    """Shapes or operations may be counted on meta before weights are loaded."""
    with torch.device("meta"):
        rotary = RotaryEmbedding(CONFIG)
    before = rotary.frequencies.clone()
    assert rotary(torch.zeros((1, 3), dtype=torch.long, device="meta"))[0].is_meta
    cos, _ = rotary(torch.tensor([[0, 1, 2]]))
    assert torch.equal(rotary.frequencies, before) and cos.device.type == "cpu"


def test_frequencies_are_neither_parameters_nor_buffers():
    rotary = RotaryEmbedding(CONFIG)
    assert not rotary.state_dict() and not [*rotary.parameters(), *rotary.buffers()]
    assert rotary.to(torch.bfloat16).frequencies.dtype == torch.float32
