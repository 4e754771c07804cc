"""Grouped-query attention against plain loops over heads, queries and keys."""

import itertools

import pytest
import torch
from layouts import DENSE, replace

from qwen2_book.attention import GroupedQueryAttention, attend
from qwen2_book.rope import RotaryEmbedding


def by_loops(query, key, value, mask):
    """One softmax at a time. mask (batch, seq, keys)."""
    out = torch.zeros_like(query)
    group = query.shape[1] // key.shape[1]
    for b, h, i in itertools.product(*map(range, query.shape[:3])):
        seen = mask[b, i].nonzero()[:, 0]
        scores = (key[b, h // group, seen] * query[b, h, i]).sum(-1) / query.shape[-1] ** 0.5
        out[b, h, i] = (scores.softmax(0)[:, None] * value[b, h // group, seen]).sum(0)
    return out


def random_heads(heads: int, kv_heads: int, seq: int, keys: int, dim: int = 8):
    generator = torch.Generator().manual_seed(heads * 100 + seq)
    shapes = ((2, heads, seq, dim), (2, kv_heads, keys, dim), (2, kv_heads, keys, dim))
    return [torch.randn(shape, generator=generator) for shape in shapes]


HEADS = [(4, 4), (4, 1), (6, 2), (14, 2), (1, 1)]


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize("seq", [1, 2, 7])
def test_plain_causal(heads, kv_heads, seq):
    query, key, value = random_heads(heads, kv_heads, seq, seq)
    mask = torch.ones(2, seq, seq).tril().bool()
    expected = by_loops(query, key, value, mask)
    torch.testing.assert_close(attend(query, key, value), expected)
    torch.testing.assert_close(attend(query, key, value, mask[:, None]), expected)


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize("seq", [1, 5])
def test_any_mask(heads, kv_heads, seq):
    """Rows of a batch may see different keys: left padding, with one query and with several."""
    query, key, value = random_heads(heads, kv_heads, seq, 9)
    mask = torch.rand(2, seq, 9, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[..., 3] = True
    expected = by_loops(query, key, value, mask)
    torch.testing.assert_close(attend(query, key, value, mask[:, None]), expected)


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_one_query_without_a_mask_sees_all(heads, kv_heads):
    query, key, value = random_heads(heads, kv_heads, 1, 9)
    expected = by_loops(query, key, value, torch.ones(2, 1, 9).bool())
    torch.testing.assert_close(attend(query, key, value), expected)


@pytest.mark.parametrize("seq", [1, 3])
def test_consecutive_query_heads_share_a_key_value_head(seq):
    query, key, _ = random_heads(6, 2, seq, seq)
    value = torch.arange(2.0)[None, :, None, None].expand(2, 2, seq, 8)
    heads = attend(query, key, value)[0, :, -1, 0]
    torch.testing.assert_close(heads, torch.tensor([0.0, 0, 0, 1, 1, 1]))


@pytest.mark.parametrize("seq", [1, 6])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_large_scores_do_not_overflow(dtype, seq):
    """Scores of 128,000 are beyond float16, which ends at 65,504."""
    query, key, value = (t.to(dtype) for t in random_heads(4, 2, seq, seq, 32))
    query, key = query.sign() * 200, key.sign() * 200
    assert attend(query, key, value).isfinite().all()
    mask = torch.ones(1, 1, seq, seq).tril().bool()
    assert attend(query, key, value, mask).isfinite().all()


def test_biases_are_on_query_key_and_value_only():
    part = GroupedQueryAttention(DENSE, 0)
    biased = {name.split(".")[0] for name, _ in part.named_parameters() if name.endswith("bias")}
    assert biased == {"q_proj", "k_proj", "v_proj"}


@pytest.mark.parametrize("name", ["q_proj", "k_proj", "v_proj"])
def test_every_bias_has_an_effect(name):
    torch.manual_seed(0)
    part, x = GroupedQueryAttention(DENSE, 0), torch.randn(1, 6, 64)
    cos, sin = RotaryEmbedding(DENSE)(torch.arange(6)[None])
    before = part(x, cos, sin)
    getattr(part, name).bias.data += torch.randn_like(getattr(part, name).bias)
    assert (part(x, cos, sin) - before)[:, 1:].abs().max() > 1e-4


@pytest.mark.parametrize("head_dim", [8, 16, 24])
def test_the_layer_by_loops(head_dim):
    """Projections with biases, rotation of queries and keys, attention, output."""
    torch.manual_seed(0)
    config = replace(DENSE, head_dim=head_dim)
    part, x = GroupedQueryAttention(config, 0), torch.randn(2, 5, 64)
    cos, sin = RotaryEmbedding(config)(torch.arange(5)[None])
    half = head_dim // 2

    def heads(projection):
        return (x @ projection.weight.T + projection.bias).view(2, 5, -1, head_dim).transpose(1, 2)

    def turned(y):
        first, second = y[..., :half], y[..., half:]
        return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)

    mask = torch.ones(2, 5, 5).tril().bool()
    query, key, value = turned(heads(part.q_proj)), turned(heads(part.k_proj)), heads(part.v_proj)
    mixed = by_loops(query, key, value, mask).transpose(1, 2).flatten(2)
    torch.testing.assert_close(part(x, cos, sin), mixed @ part.o_proj.weight.T)
