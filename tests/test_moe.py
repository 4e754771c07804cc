"""The expert layer against a loop over tokens; the router's weights; the auxiliary loss."""

import pytest
import torch
import torch.nn.functional as F
from layouts import DENSE, EXPERTS, LAYOUTS, random_model, replace

from qwen2_book.config import Qwen2Config
from qwen2_book.feedforward import SwiGLU
from qwen2_book.moe import MixtureOfExperts, load_balancing_loss

CONFIG = LAYOUTS["experts"]
E, K = CONFIG.num_experts, CONFIG.num_experts_per_tok


def layer(config: Qwen2Config = CONFIG, seed: int = 0) -> MixtureOfExperts:
    torch.manual_seed(seed)
    part = MixtureOfExperts(config)
    part.gate.weight.data *= 6
    return part


def ffn(expert: SwiGLU, x: torch.Tensor) -> torch.Tensor:
    gate, up, down = (getattr(expert, f"{n}_proj").weight for n in ("gate", "up", "down"))
    return down @ ((gate @ x) * torch.sigmoid(gate @ x) * (up @ x))


@torch.no_grad()
def by_loops(part: MixtureOfExperts, x: torch.Tensor, renormalise: bool) -> torch.Tensor:
    """The report's formula, one token after the other."""
    rows = []
    for token in x.flatten(0, 1):
        p = (part.gate.weight @ token).softmax(0)
        best = sorted(range(len(p)), key=lambda e: -float(p[e]))[: part.top_k]
        total = sum(p[e] for e in best) if renormalise else 1.0
        y = sum(p[e] / total * ffn(part.experts[e], token) for e in best)
        shared = torch.sigmoid(part.shared_expert_gate.weight @ token)
        rows.append(y + shared * ffn(part.shared_expert, token))
    return torch.stack(rows).view_as(x)


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (3, 40)])
@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("top_k", [1, 3, 8])
def test_the_formula(shape, renormalise, top_k):
    part = layer(replace(CONFIG, norm_topk_prob=renormalise, num_experts_per_tok=top_k))
    x = torch.randn(*shape, 64)
    expected = by_loops(part, x, renormalise)
    torch.testing.assert_close(part(x).detach(), expected, atol=1e-5, rtol=1e-4)


def test_weights_are_not_renormalised():
    part, x = layer(), torch.randn(50, 64)
    weights, chosen = part.route(x)
    torch.testing.assert_close(weights, part.gate(x).softmax(-1).gather(1, chosen))
    assert (weights.sum(-1) < 1).all() and weights.sum(-1).min() < 0.9
    assert (weights.diff(dim=-1) <= 0).all()  # the most likely first
    assert all(len({*row}) == K for row in chosen.tolist())
    again, same = layer(replace(CONFIG, norm_topk_prob=True)).route(torch.randn(50, 64))
    torch.testing.assert_close(again.sum(-1), torch.ones(50))
    assert same.shape == (50, K)


def test_the_router_computes_its_softmax_in_float32():
    part = layer().to(torch.bfloat16)
    x = torch.randn(200, 64).to(torch.bfloat16)
    weights, chosen = part.route(x)
    wide = part.gate(x).float().softmax(-1)
    assert weights.dtype == torch.bfloat16
    assert torch.equal(weights, wide.gather(1, chosen).to(torch.bfloat16))
    assert torch.equal(wide.gather(1, chosen), wide.topk(K).values)


def test_all_tokens_may_go_to_the_same_experts():
    part, x = layer(), torch.randn(1, 1, 64).expand(2, 20, 64)
    torch.testing.assert_close(part(x).detach(), by_loops(part, x, False), atol=1e-5, rtol=1e-4)


def test_experts_in_another_order_give_the_same():
    part, x = layer(), torch.randn(2, 9, 64)
    before = part(x)
    order = torch.randperm(E).tolist()
    part.experts = torch.nn.ModuleList(part.experts[i] for i in order)
    part.gate.weight.data = part.gate.weight.data[order]
    torch.testing.assert_close(part(x), before)


def test_gradients_reach_router_shared_expert_and_the_chosen_only():
    part, x = layer(), torch.randn(1, 1, 64)
    part(x).square().sum().backward()
    _, chosen = part.route(x[0])
    for index, expert in enumerate(part.experts):
        assert (expert.up_proj.weight.grad is not None) == (index in chosen[0].tolist())
    for trained in (part.gate, part.shared_expert_gate, part.shared_expert.down_proj):
        assert trained.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("change", "sparse"),
    [
        ({}, [0, 1, 2, 3]),
        ({"decoder_sparse_step": 2}, [1, 3]),
        ({"decoder_sparse_step": 3}, [2]),
        ({"decoder_sparse_step": 5}, []),
        ({"mlp_only_layers": (0, 2)}, [1, 3]),
        ({"decoder_sparse_step": 2, "mlp_only_layers": (3,)}, [1]),
    ],
)
def test_which_layers_have_experts(change, sparse):
    model = random_model(replace(DENSE, **EXPERTS, **change))
    kinds = [type(part.mlp) for part in model.model.layers]
    assert kinds == [MixtureOfExperts if i in sparse else SwiGLU for i in range(4)]
    assert not any(DENSE.is_sparse(i) for i in range(4))


def test_the_loss_by_counting():
    torch.manual_seed(0)
    logits = torch.randn(50, E)
    p = logits.softmax(-1)
    f = torch.zeros(E)
    for row in p.tolist():
        for expert in sorted(range(E), key=lambda e: -row[e])[:K]:
            f[expert] += 1 / 50
    assert f.sum() == pytest.approx(K)
    torch.testing.assert_close(load_balancing_loss(logits, K), E * (f * p.mean(0)).sum())


def test_the_loss_is_k_in_balance_and_grows_towards_collapse():
    balanced = 20 * F.one_hot(torch.arange(800) % E, E).float()
    assert load_balancing_loss(balanced, 1) == pytest.approx(1, rel=1e-4)
    collapsed = torch.zeros(80, E)
    collapsed[:, 2] = 40
    assert load_balancing_loss(collapsed, 1) == pytest.approx(E, rel=1e-4)


def test_the_loss_leaves_padding_out():
    logits = torch.randn(20, E)
    real = torch.arange(20) >= 8
    torch.testing.assert_close(
        load_balancing_loss(logits, K, real), load_balancing_loss(logits[8:], K)
    )
