"""The residual stream: what is recorded, and that the figure shows it."""

import math

import pytest
import torch

from qwen2_book import load, trace
from qwen2_book.trace import residual_states
from qwen2_book.widgets import ResidualStream, stream_data

WORDS = "The cat gave the ball to Bob."


def test_the_states_are_the_sum_of_what_is_added():
    model, tokenizer = load(dtype="float32")
    ids = tokenizer.encode(WORDS)
    states = residual_states(model, ids)
    layers = model.config.num_hidden_layers
    assert states.shape == (2 * layers + 1, 1, len(ids), model.config.hidden_size)
    torch.testing.assert_close(states[::2].norm(dim=-1), trace(model, ids).residual_norms)
    assert torch.equal(states[0, 0], model.model.embed_tokens(torch.tensor(ids)))
    x, layer = states[0], model.model.layers[0]
    cos, sin = model.model.rotary(torch.arange(len(ids))[None])
    attention = layer.self_attn(layer.input_layernorm(x), cos, sin)
    torch.testing.assert_close(states[1] - states[0], attention, atol=1e-5, rtol=1e-4)
    logits = model.lm_head(model.model.norm(states[-1]))
    torch.testing.assert_close(logits, model(torch.tensor([ids])), atol=1e-4, rtol=1e-4)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_the_figure_shows_what_was_recorded():
    model, tokenizer = load(dtype="float32")
    ids = tokenizer.encode(WORDS)
    states = residual_states(model, ids)[:, 0]
    prompt = stream_data.prompt_data("yours", tokenizer.pieces(ids), states)
    data = {"source": "tiny", "blocks": model.config.num_hidden_layers, "prompts": [prompt]}
    figure = ResidualStream(data, block=2, token=3)
    assert math.isclose(figure.length(), float(states[4, 3].norm()), rel_tol=1e-3)
    rest = [float(states[4, t].norm()) for t in range(len(ids)) if t != 3]
    assert min(rest) <= figure.others() <= max(rest)
    for i, (length, cosine) in enumerate(figure.added()):
        write = states[3 + i, 3] - states[2 + i, 3]
        assert math.isclose(length, float(write.norm()), rel_tol=1e-3)
        expected = torch.cosine_similarity(write, states[2 + i, 3], dim=0)
        assert math.isclose(cosine, float(expected), abs_tol=1e-3)
    for dimension, value in figure.largest():
        assert math.isclose(value, float(states[4, 3, dimension]), rel_tol=1e-3)
    assert figure.largest()[0][0] == int(states[4, 3].abs().argmax())
    assert ResidualStream(data, block=0).added() == ()
    with pytest.raises(ValueError, match="expected the same, 1 to 16"):
        stream_data.prompt_data("x", ["a"] * 17, torch.zeros(3, 17, 4))


def test_the_stored_prompts_are_small_and_whole():
    data = stream_data.stored()
    assert stream_data.STORED.stat().st_size < 150_000
    assert [len(prompt["tokens"]) for prompt in data["prompts"]] == [16, 16]
    for prompt in data["prompts"]:
        for what, count in (("norms", 49), ("added", 48), ("cosines", 48), ("dims", 25)):
            assert [len(row) for row in prompt[what]] == [count] * 16
    figure = ResidualStream()
    assert figure.length() > 50 * figure.others()  # the first token after four blocks
    assert [dimension for dimension, _ in figure.largest()][:2] == [62, 490]
    assert "dimension 62" in figure.description()
    assert figure.note == ""
    assert "block 99 is outside 0 to 24" in ResidualStream(block=99).note


def test_the_stored_numbers_are_the_checkpoints(real_checkpoint):
    model, tokenizer = load(real_checkpoint, dtype="float32", device="cpu")
    stored = stream_data.stored()["prompts"][0]
    ids = tokenizer.encode("".join(stored["tokens"]))
    states = residual_states(model, ids)[:, 0]
    again = stream_data.prompt_data("English", tokenizer.pieces(ids), states)
    torch.testing.assert_close(
        torch.tensor(again["norms"]), torch.tensor(stored["norms"]), atol=0.01, rtol=0.01
    )
