"""Gates of a model over a text, the separation of labels, and closing a neuron."""

import pytest
import torch
import torch.nn.functional as F

from qwen2_book import Qwen2, Qwen2Config, load
from qwen2_book.exercises.swiglu_checks import _pairs
from qwen2_book.neurons import closed, gates, separation


@pytest.fixture(scope="module")
def tiny():
    model, tokenizer = load(dtype="float32")
    return model, tokenizer.encode("Alice gave the red ball to Bob.")


def test_gates_are_the_projections_of_the_normed_stream(tiny):
    model, ids = tiny
    found, up = gates(model, ids), gates(model, ids, "up_proj")
    layers, width = model.config.num_hidden_layers, model.config.intermediate_size
    assert found.shape == up.shape == (layers, len(ids), width)
    seen = []
    hook = model.model.layers[3].mlp.register_forward_hook(lambda m, i, o: seen.append((i[0], o)))
    with torch.no_grad():
        model(torch.tensor([ids]))
    hook.remove()
    x, out = seen[0]
    mlp = model.model.layers[3].mlp
    assert torch.allclose(found[3], mlp.gate_proj(x)[0], atol=1e-5)
    assert torch.allclose(mlp.down_proj(F.silu(found[3]) * up[3]), out[0], atol=1e-5)
    assert not model.model.layers[3].mlp.gate_proj._forward_hooks


def test_separation_counts_pairs():
    values = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randn(3, 30, generator=torch.Generator().manual_seed(1)) > 0.4
    found = separation(values, labels)
    for kind in range(3):
        for neuron in range(5):
            expected = _pairs(values[:, neuron].tolist(), labels[kind].tolist())
            assert abs(float(found[kind, neuron]) - expected) < 1e-5
    perfect = separation(torch.arange(6.0)[:, None], torch.tensor([[False] * 4 + [True] * 2]))
    assert float(perfect) == 1.0


def test_a_closed_neuron_adds_nothing_and_opens_again(tiny):
    model, ids = tiny
    tokens = torch.tensor([ids])
    with torch.no_grad():
        before = model(tokens)
        with closed(model, [(2, 5), (2, 7), (3, 0)]):
            found = gates(model, ids)
            inside = model(tokens)
        after = model(tokens)
    assert found[2, :, 5].abs().max() == found[2, :, 7].abs().max() == found[3, :, 0].abs().max()
    assert float(found[2, :, 5].abs().max()) == 0 < float(found[2, :, 6].abs().max())
    assert torch.equal(before, after)
    twin = load(dtype="float32")[0]
    for layer, neuron in ((2, 5), (2, 7), (3, 0)):
        twin.model.layers[layer].mlp.down_proj.weight.data[:, neuron] = 0
    with torch.no_grad():
        assert torch.allclose(inside, twin(tokens), atol=1e-4)
    assert not torch.equal(before, inside)


def test_experts_are_refused():
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=32,
    )
    with pytest.raises(TypeError, match="expected dense SwiGLU"):
        gates(Qwen2(config), [1, 2, 3])
