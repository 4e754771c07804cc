"""What right answers to the exercises of chapter 06 do: each check raises AssertionError if not."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen2_book.config import Qwen2Config


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _close(found: object, expected: Tensor, tolerance: float = 1e-6) -> None:
    assert isinstance(found, Tensor), "not a tensor"
    assert found.shape == expected.shape
    assert torch.allclose(found.double(), expected.double(), atol=tolerance, rtol=tolerance)


def plain_width() -> int:
    """The width at which an ungated layer has the weights of Qwen2-7B's."""
    return Qwen2Config.named("Qwen2-7B").intermediate_size * 3 // 2


# 06-2: the derivative of SiLU


def slope(places: list[float]) -> Callable:
    """The reader's derivative equals autograd's at some places."""

    def holds(derivative: Callable) -> None:
        x = torch.tensor(places, dtype=torch.float64, requires_grad=True)
        (expected,) = torch.autograd.grad(F.silu(x).sum(), x)
        _close(derivative(x.detach()), expected)

    return holds


def slope_far(derivative: Callable) -> None:
    """Far from zero it is 0 or 1, in float32 too."""
    x = torch.tensor([-200.0, -50.0, 50.0, 200.0])
    _close(derivative(x), torch.tensor([0.0, 0.0, 1.0, 1.0]))


# 06-3: gate, up and down weights of a layer that multiplies


def _layer(weights: Callable, x: Tensor) -> Tensor:
    gate, up, down = (torch.as_tensor(w, dtype=torch.float64) for w in weights())
    assert gate.shape == up.shape == (2, 2) and down.shape == (1, 2)
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


def products(weights: Callable) -> None:
    """Two neurons give the product of two numbers."""
    x = _random(50, 2)
    _close(_layer(weights, x), x[:, :1] * x[:, 1:])


def products_wild(weights: Callable) -> None:
    """Of any size."""
    x = _random(50, 2, seed=1) * torch.tensor([300.0, 0.001], dtype=torch.float64)
    _close(_layer(weights, x), x[:, :1] * x[:, 1:])


# 06-4: fused(x, gate_up, down)


def _weights(hidden: int, width: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (width, hidden), (width, hidden), (hidden, width)
    gate, up, down = (_random(*s, seed=seed + i) for i, s in enumerate(shapes))
    return gate, up, down


def _swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


def fused_order(fused: Callable) -> None:
    """SiLU acts on the first half."""
    x, (gate, up, down) = _random(5, 4), _weights(4, 6, seed=2)
    _close(fused(x, torch.cat((gate, up)), down), _swiglu(x, gate, up, down))


def fused_as_two(fused: Callable) -> None:
    """Batches of sequences, and one vector alone."""
    gate, up, down = _weights(4, 6, seed=3)
    for x in (_random(2, 6, 4), _random(3, 1, 5, 4), _random(4)):
        _close(fused(x, torch.cat((gate, up)), down), _swiglu(x, gate, up, down))


# 06-5: on_ranks(x, gate, up, down, ranks)


def ranks_agree(counts: list[int]) -> Callable:
    """The sum over ranks is the whole layer."""

    def holds(on_ranks: Callable) -> None:
        x, (gate, up, down) = _random(2, 5, 4), _weights(4, 12, seed=4)
        for ranks in counts:
            _close(on_ranks(x, gate, up, down, ranks), _swiglu(x, gate, up, down))

    return holds


# 06-6: separation of one neuron


def _pairs(values: list[float], labels: list[bool]) -> float:
    inside = [v for v, has in zip(values, labels, strict=True) if has]
    outside = [v for v, has in zip(values, labels, strict=True) if not has]
    wins = sum((a > b) + (a == b) / 2 for a in inside for b in outside)
    return wins / (len(inside) * len(outside))


def _same(found: object, expected: float) -> None:
    assert abs(float(found) - expected) < 1e-6  # type: ignore[arg-type]


def _labels(length: int) -> list[bool]:
    return [bool(value > 0.3) for value in _random(length, seed=9)]


def separation_cases(separation: Callable) -> None:
    """Perfect, reversed, and random neurons."""
    yes = [False, True, False, True, True]
    for values in ([0.0, 5.0, 1.0, 3.0, 2.0], [5.0, 0.0, 4.0, 1.0, 2.0]):
        _same(separation(torch.tensor(values), torch.tensor(yes)), _pairs(values, yes))
    values = _random(40, seed=7).tolist()
    found = separation(torch.tensor(values), torch.tensor(_labels(40)))
    _same(found, _pairs(values, _labels(40)))


def separation_ties(separation: Callable) -> None:
    """Equal values: constant, and rounded."""
    yes = [True, False, True, False]
    _same(separation(torch.zeros(4), torch.tensor(yes)), 0.5)
    values = _random(40, seed=8).round().tolist()
    found = separation(torch.tensor(values), torch.tensor(_labels(40)))
    _same(found, _pairs(values, _labels(40)))
