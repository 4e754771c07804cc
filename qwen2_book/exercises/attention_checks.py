"""What right answers to the exercises of chapter 05 do: each check raises AssertionError if not."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from qwen2_book import costs
from qwen2_book.config import Qwen2Config

CARD, LENGTH = 24 * 2**30, 32_768
SEVEN = Qwen2Config.named("Qwen2-7B")


def sequences(kv_heads: int | None = None) -> int:
    """How many full sequences fit beside the 7B's weights in 24 GiB, all in bfloat16."""
    config = SEVEN if kv_heads is None else replace(SEVEN, num_key_value_heads=kv_heads)
    room = CARD - costs.weight_bytes(config)
    return int(room // costs.cache_bytes(config, LENGTH))


def decode_flops() -> int:
    """Operations of scores and weighted sums for one token of the 7B over 32,768 keys."""
    return 4 * SEVEN.num_hidden_layers * SEVEN.num_attention_heads * SEVEN.head_dim * LENGTH


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """One query head after the other, one query after the other: slow and obvious."""
    out = torch.zeros(*query.shape[:-1], value.shape[-1], dtype=query.dtype)
    groups = query.shape[0] // key.shape[0]
    for head, i in torch.cartesian_prod(*map(torch.arange, query.shape[:2])).tolist():
        keys, values = key[head // groups, : i + 1], value[head // groups, : i + 1]
        scores = keys @ query[head, i] / query.shape[-1] ** 0.5
        out[head, i] = scores.softmax(-1) @ values
    return out


def _close(found: object, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert isinstance(found, Tensor), "not a tensor"
    assert found.shape == expected.shape
    assert torch.allclose(found.double(), expected.double(), atol=tolerance, rtol=1e-4)


# 05-3: mqa(query, key, value) with one head of keys and values


def mqa_cases(cases: list[tuple[int, int, int]], value_dim: int = 0) -> Callable:
    """The reader's multi-query attention equals the slow one, for (heads, n, dim) cases."""

    def holds(mqa: Callable) -> None:
        for heads, n, dim in cases:
            query, key = _random(heads, n, dim), _random(n, dim, seed=1)
            value = _random(n, value_dim or dim, seed=2)
            _close(mqa(query, key, value), _attend(query, key[None], value[None]))

    return holds


def mqa_no_copies(mqa: Callable) -> None:
    """A thousand heads over one large key: a copy for each head would be made by repeating."""
    copied, methods = [], {}
    for name in ("repeat", "repeat_interleave", "tile"):
        methods[name] = getattr(Tensor, name)

        def spy(self, *args, _true=methods[name], **options):
            copied.append(self.shape)
            return _true(self, *args, **options)

        setattr(Tensor, name, spy)
    try:
        mqa(_random(3, 4, 8), _random(4, 8, seed=1), _random(4, 8, seed=2))
    finally:
        for name, true in methods.items():
            setattr(Tensor, name, true)
    assert not copied


# 05-4: previous_token_head(attention) of shape (layers, heads, n, n)


def _maps(layers: int, heads: int, n: int, seed: int = 0) -> Tensor:
    scores = _random(layers, heads, n, n, seed=seed)
    hidden = torch.ones(n, n, dtype=torch.bool).triu(1)
    return scores.masked_fill(hidden, -torch.inf).softmax(-1)


def _looking(n: int, back: int) -> Tensor:
    """A head that looks `back` tokens back; where there are none, at itself."""
    rows = torch.arange(n)
    columns = torch.where(rows >= back, rows - back, rows)
    return torch.eye(n, dtype=torch.float64)[columns] * 0.9 + _maps(1, 1, n)[0, 0] * 0.1


def finds_head(others: dict[tuple[int, int], int | str], where: tuple[int, int]) -> Callable:
    """The head at `where` looks one token back; `others` look elsewhere, and must not win."""

    def holds(find: Callable) -> None:
        maps = _maps(5, 6, 12)
        maps[where] = _looking(12, 1)
        for place, back in others.items():
            if back == "first":
                maps[place] = torch.eye(12, dtype=torch.float64)[torch.zeros(12).long()]
            else:
                maps[place] = _looking(12, int(back))
        found = find(maps)
        assert tuple(int(x) for x in found) == where

    return holds


# 05-5: pool(weight, heads, groups)


def pools(cases: list[tuple[int, int, int]], columns: int | None = 5) -> Callable:
    """(heads, groups, head_dim): each group's mean, consecutive heads together."""

    def holds(pool: Callable) -> None:
        for heads, groups, dim in cases:
            shape = (heads * dim,) if columns is None else (heads * dim, columns)
            weight = _random(*shape)
            size = heads // groups
            rows = weight.view(heads, dim, *shape[1:])
            means = [rows[g * size : (g + 1) * size].sum(0) / size for g in range(groups)]
            _close(pool(weight, heads, groups), torch.cat(means))

    return holds


# 05-6: a port of the attention layer; port(x, q_proj, k_proj, v_proj, head_dim)


def _layer(heads: int, kv: int, dim: int, bias: float) -> tuple[Tensor, list[nn.Linear]]:
    generator = torch.Generator().manual_seed(3)
    linears = [nn.Linear(8, count * dim) for count in (heads, kv, kv)]
    with torch.no_grad():
        for linear in linears:
            linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator) / 3)
            linear.bias.copy_(torch.randn(linear.bias.shape, generator=generator) * bias)
    return torch.randn(2, 6, 8, generator=generator), linears


@torch.no_grad()
def right_port(x: Tensor, linears: list[nn.Linear], head_dim: int) -> Tensor:
    """What 05-6 must compute, row by row of the batch, in double precision."""
    parts = [p.weight.double() @ x.double().mT + p.bias.double()[:, None] for p in linears]
    rows = [[p[b].view(-1, head_dim, x.shape[1]).mT for p in parts] for b in range(len(x))]
    return torch.stack([_attend(*row).transpose(0, 1).flatten(1) for row in rows]).to(x.dtype)


def port_cases(heads: int, kv: int, bias: float = 0.0) -> Callable:
    """The reader's layer equals the slow one, for these heads and biases of this size."""

    def holds(port: Callable) -> None:
        x, linears = _layer(heads, kv, 4, bias)
        with torch.no_grad():
            _close(port(x, *linears, 4), right_port(x, linears, 4), 1e-4)

    return holds


def port_in_half(port: Callable) -> None:
    """Shared large biases, float16: the scores pass 65,504 and the answer must stay finite."""
    x, linears = _layer(4, 2, 4, 0.0)
    with torch.no_grad():
        for linear in linears[:2]:
            linear.bias.fill_(160.0)
        half = [linear.half() for linear in linears]
        found = port(x.half(), *half, 4)
        largest = half[2](x.half()).abs().max()
    assert isinstance(found, Tensor)
    assert bool(found.isfinite().all())
    assert float(found.abs().max()) <= 1.01 * float(largest)  # a mean of values is no larger


def port_dtype(port: Callable) -> None:
    """float16 in, float16 out."""
    x, linears = _layer(4, 2, 4, 0.1)
    with torch.no_grad():
        assert port(x.half(), *[linear.half() for linear in linears], 4).dtype == torch.float16
