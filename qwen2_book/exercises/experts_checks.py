"""What right answers to the exercises of chapter 08 do: each check raises AssertionError if not."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from qwen2_book.config import Qwen2Config
from qwen2_book.moe import MixtureOfExperts, load_balancing_loss


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _close(found: object, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert isinstance(found, Tensor), "not a tensor"
    assert found.shape == expected.shape
    assert torch.allclose(found.float(), expected, atol=tolerance, rtol=tolerance)


def experts_read() -> int:
    """Routed experts that one token runs through, over all layers of the 57B."""
    config = Qwen2Config.named("Qwen2-57B-A14B")
    return config.num_hidden_layers * config.num_experts_per_tok


def gpus_of_a_token() -> float:
    """The mean number of GPUs that hold one of a token's experts: 8 of 64 experts, 8 a GPU."""
    return 8 * (1 - math.comb(56, 8) / math.comb(64, 8))


# 08-2: dropped(chosen, experts, factor)


def _served(chosen: list[list[int]], experts: int, factor: float) -> list[list[bool]]:
    capacity = math.ceil(factor * len(chosen) * len(chosen[0]) / experts)
    taken = [0] * experts
    found: list[list[bool]] = []
    for row in chosen:
        found.append([])
        for expert in row:
            found[-1].append(taken[expert] >= capacity)
            taken[expert] += 1
    return found


def _drops(answer: Callable, chosen: list[list[int]], experts: int, factor: float) -> None:
    found = answer(torch.tensor(chosen), experts, factor)
    assert isinstance(found, Tensor) and found.shape == (len(chosen), len(chosen[0]))
    assert found.bool().tolist() == _served(chosen, experts, factor)


def nothing_dropped(answer: Callable) -> None:
    """In perfect balance a factor of 1 is enough."""
    _drops(answer, [[t % 4, (t + 1) % 4] for t in range(8)], 4, 1.0)


def late_dropped(answer: Callable) -> None:
    """All tokens want the same expert: the first ones get it."""
    _drops(answer, [[2], [2], [2], [2], [2], [2]], 3, 1.0)
    _drops(answer, [[2, 0], [2, 1], [2, 0], [2, 1]], 4, 1.0)


def rounded_up(answer: Callable) -> None:
    """A capacity that is not whole."""
    for factor in (0.5, 1.1, 1.25):
        chosen = _random(21, 8, seed=3).topk(3).indices.tolist()
        _drops(answer, chosen, 8, factor)


# 08-3: parts(layer, x)


def _layer(renormalise: bool = False) -> MixtureOfExperts:
    torch.manual_seed(1)
    layer = MixtureOfExperts(
        Qwen2Config(
            hidden_size=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            num_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=8,
            shared_expert_intermediate_size=16,
            norm_topk_prob=renormalise,
        )
    )
    layer.gate.weight.data *= 4
    return layer


@torch.no_grad()
def parts_sum(parts: Callable) -> None:
    """Together they are the layer."""
    for shape in ((2, 7), (1, 1)):
        layer, x = _layer(), _random(*shape, 16)
        routed, shared = parts(layer, x)
        _close(routed + shared, layer(x))


@torch.no_grad()
def parts_apart(parts: Callable) -> None:
    """Each is what the layer gives where the other one is silent."""
    layer, x = _layer(), _random(2, 7, 16)
    routed, shared = parts(layer, x)
    _close(shared, layer.shared_expert_gate(x).sigmoid() * layer.shared_expert(x))
    layer.shared_expert.down_proj.weight.data.zero_()
    _close(routed, layer(x))


@torch.no_grad()
def parts_follow_the_layer(parts: Callable) -> None:
    """A layer that renormalises its weights."""
    layer, x = _layer(renormalise=True), _random(2, 3, 16)
    routed, shared = parts(layer, x)
    _close(routed + shared, layer(x))


# 08-5: route(logits, k)


def route_choices(route: Callable) -> None:
    """The k most likely experts, the most likely first."""
    logits = _random(20, 8)
    assert route(logits, 3)[1].tolist() == logits.topk(3).indices.tolist()


def route_weights(route: Callable) -> None:
    """Probabilities among all experts."""
    logits = 2 * _random(20, 8, seed=1)
    weights, chosen = route(logits, 3)
    _close(weights, logits.softmax(-1).gather(1, chosen))


def route_precision(route: Callable) -> None:
    """Softmax in float32, the result in the dtype of the logits."""
    logits = (0.3 * _random(200, 64, seed=2)).to(torch.bfloat16)
    weights, chosen = route(logits, 8)
    assert weights.dtype == torch.bfloat16
    wide = logits.float().softmax(-1)
    assert torch.equal(weights, wide.gather(1, chosen).to(torch.bfloat16))
    assert torch.equal(wide.gather(1, chosen), wide.topk(8).values)  # rounding first makes ties


# 08-6: balance(hidden, gate, k)


def balance_even(balance: Callable) -> None:
    """Every expert in turn: the loss is k."""
    for k in (1, 2):
        gate = 20 * torch.eye(4)
        hidden = torch.eye(4) + 0.9 * torch.eye(4).roll(1, 0) * (k > 1)
        found = float(balance(hidden, gate, k))
        assert abs(found - k) < 0.01


def balance_collapsed(balance: Callable) -> None:
    """One expert for all: the loss is E."""
    hidden = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(10, 4)
    assert abs(float(balance(hidden, 20 * torch.eye(4), 1)) - 4) < 0.01


def balance_random(balance: Callable) -> None:
    """Any router, with its gradient."""
    for k in (1, 3):
        hidden, gate = _random(40, 16, seed=4), _random(8, 16, seed=5).requires_grad_()
        found, expected = balance(hidden, gate, k), load_balancing_loss(hidden @ gate.T, k)
        _close(found, expected)
        slope, wanted = (torch.autograd.grad(each, gate)[0] for each in (found, expected))
        _close(slope, wanted)
