"""The trace against attention computed the obvious way."""

import sys

import pytest
import torch

from qwen2_book.config import Qwen2Config
from qwen2_book.dual_chunk import with_dual_chunk
from qwen2_book.model import Qwen2
from qwen2_book.trace import mass_in_window, trace

CONFIG = Qwen2Config(
    vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, rope_theta=1e4, dtype="float32",
)  # fmt: skip
IDS = torch.randint(0, 97, (2, 21), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model() -> Qwen2:
    torch.manual_seed(0)
    model = Qwen2(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5) if parameter.ndim == 2 else parameter.add_(0.1)
    return model


@torch.no_grad()
def outputs_from(model: Qwen2, seen, layer: int) -> torch.Tensor:
    """The layer's attention output, made from the traced weights and the layer's own values."""
    captured = {}
    part = model.model.layers[layer].self_attn
    hook = part.register_forward_hook(lambda m, a, o: captured.update(x=a[0], out=o))
    model(IDS)
    hook.remove()
    value = part.v_proj(captured["x"]).unflatten(-1, (2, 8)).transpose(1, 2)
    mixed = seen.attention[layer] @ value.repeat_interleave(2, 1)
    return (part.o_proj(mixed.transpose(1, 2).flatten(2)) - captured["out"]).abs().max()


@pytest.mark.parametrize("window", [None, 1, 4, 30])
def test_the_weights_give_the_layer_its_output(model, window):
    sliding = model.with_window(window, sink_tokens=1 if window else 0)
    seen = trace(sliding, IDS)
    for layer in range(3):
        assert outputs_from(sliding, seen, layer) < 1e-5
        torch.testing.assert_close(seen.attention[layer].sum(-1), torch.ones(2, 4, 21))


def test_only_what_is_asked_for(model):
    whole = trace(model, IDS)
    seen = trace(model, IDS, layers=[2, 0], heads=[3], rows=slice(-2, None))
    assert set(seen.attention) == {0, 2}
    assert (seen.heads, seen.rows) == ([3], [19, 20])
    for layer, attention in seen.attention.items():
        torch.testing.assert_close(attention, whole.attention[layer][:, 3:, 19:])
    last = trace(model, IDS, [-1], [-1], [-1]).attention[2]
    torch.testing.assert_close(last, whole.attention[2][:, 3:, 20:])
    assert trace(model, IDS, layers=[]).attention == {}


def test_rows_are_computed_in_blocks(model, monkeypatch):
    whole = trace(model, IDS)
    monkeypatch.setattr(sys.modules["qwen2_book.trace"], "ROW_BLOCK", 4)
    torch.testing.assert_close(trace(model, IDS).attention[1], whole.attention[1])


def test_logits_and_norms_are_the_models(model):
    seen = trace(model, IDS)
    with torch.no_grad():
        torch.testing.assert_close(seen.logits, model(IDS, last_only=True))
        torch.testing.assert_close(
            seen.residual_norms[0], model.model.embed_tokens(IDS).norm(dim=-1)
        )
    assert seen.residual_norms.shape == (4, 2, 21)


def test_the_lens_ends_in_the_models_own_prediction(model):
    seen = trace(model, IDS, layers=[], lens=3)
    with torch.no_grad():
        top = model(IDS).softmax(-1).topk(3)
    assert seen.lens_ids.shape == (4, 2, 21, 3)
    torch.testing.assert_close(seen.lens_probabilities[-1], top.values)
    assert torch.equal(seen.lens_ids[-1], top.indices)
    assert trace(model, IDS).lens_ids is None


def test_nothing_stays_behind(model):
    trace(model, IDS, lens=1)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    with pytest.raises(ValueError, match="expected 0 to 96"):
        trace(model, [[0], [97]][1])
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


@pytest.mark.parametrize("what", ["layer", "head", "row"])
def test_what_does_not_exist_is_named(model, what):
    with pytest.raises(ValueError, match=rf"{what}s \[99\]: expected 0 to"):
        trace(model, IDS, **{f"{what}s": [0, 99]})


def test_mass_in_window_by_counting():
    attention = torch.rand(2, 6, 6).tril()
    for window in (1, 3, 6, 9):
        for sinks in (0, 2):
            mass = mass_in_window(attention, range(6), window, sinks)
            for i in range(6):
                inside = [j for j in range(i + 1) if i - j < window or j < sinks]
                torch.testing.assert_close(mass[:, i], attention[:, i, inside].sum(-1))


def test_dual_chunk_attention_has_no_maps(model):
    other = with_dual_chunk(model, 8, 2)
    with pytest.raises(ValueError, match=r"layers \[0, 2\] were run without their attention"):
        trace(other, IDS, layers=[0, 2])
    assert trace(other, IDS, layers=[]).logits.shape == (2, 1, 97)
