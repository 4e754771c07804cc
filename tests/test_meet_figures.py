"""The figures of chapter 01: the map shows the model's shapes, the lens what trace saw."""

import math

import pytest
import torch

from qwen2_book import Qwen2, Qwen2Config, load, trace
from qwen2_book.widgets import LogitLens, ModelMap, logit_lens
from qwen2_book.widgets.model_map import DOORS, SIZES


def seen_shapes(config: Qwen2Config, tokens: int) -> dict[int, list[tuple[int, ...]]]:
    """What really passes the doors of a model: run on `meta`, watched by hooks."""
    found: dict[int, list[tuple[int, ...]]] = {}

    def watch(door, part, of="output"):
        def hook(module, args, output):
            found.setdefault(door, []).append(tuple((output if of == "output" else args[0]).shape))

        part.register_forward_hook(hook)

    with torch.device("meta"):
        model = Qwen2(config)
        layer = model.model.layers[0]
        watch(2, model.model.embed_tokens)
        watch(3, layer.input_layernorm)
        watch(6, layer.post_attention_layernorm, "input")
        watch(8, model.model.norm, "input")
        watch(9, model.model.norm)
        if not config.num_experts:
            watch(7, layer.mlp.down_proj, "input")
        ids = torch.zeros(1, tokens, dtype=torch.long)
        if config.num_experts:  # routing needs numbers: the experts are left out
            x = model.model.embed_tokens(ids)
            layer.input_layernorm(x)
            found[7] = [(tokens * config.num_experts_per_tok, config.moe_intermediate_size)]
            found[7].append((1, tokens, config.shared_expert_intermediate_size))
        else:
            found[10] = [tuple(model(ids).shape)]
        query, key, value = (
            (1, heads, tokens, config.head_dim)
            for heads in (config.num_attention_heads, *[config.num_key_value_heads] * 2)
        )
        attention = layer.self_attn
        assert attention.q_proj.out_features == math.prod(query) // tokens
        assert attention.k_proj.out_features == math.prod(key) // tokens
        found[4] = [query, key, value]
    return found


@pytest.mark.parametrize("size", range(len(SIZES)))
def test_the_maps_shapes_are_the_models(size):
    config = Qwen2Config.named(f"Qwen2-{SIZES[size]}")
    for door, shapes in seen_shapes(config, 7).items():
        assert ModelMap(size=size, tokens=7, door=door).shapes() == shapes, DOORS[door]
    assert ModelMap(size=size, tokens=7, door=11).shapes() == [(config.vocab_size,)]


def test_the_map_says_what_qwen2_is():
    small, moe = ModelMap(size=0).description(), ModelMap(size=3).description()
    assert "the embedding matrix again" in small
    assert "a matrix of its own" in moe
    for text in ("causal attention", "queries, keys and values have a bias", "sampler"):
        assert text in small
    assert "size 9 is outside 0 to 4: showing 4" in ModelMap(size=9).note


def test_the_lens_shows_what_trace_saw():
    model, tokenizer = load(dtype="float32")
    ids = tokenizer.encode("Anna has a red ball.")
    seen = trace(model, ids, layers=[], lens=5)
    figure = LogitLens.of(seen, tokenizer, "tiny", block=2, position=3)
    expected = tokenizer.pieces(seen.lens_ids[2, 0, 3].tolist())
    assert [text for text, _ in figure.five()] == expected
    for (_, share), p in zip(figure.five(), seen.lens_probabilities[2, 0, 3], strict=True):
        assert abs(share - 1000 * float(p)) <= 0.5
    firsts = tokenizer.pieces(seen.lens_ids[:, 0, 3, 0].tolist())
    settled = figure.settled()
    assert firsts[settled:] == [firsts[-1]] * (len(firsts) - settled)
    assert settled == 0 or firsts[settled - 1] != firsts[-1]
    long = trace(model, ids * 4, layers=[], lens=5)
    with pytest.raises(ValueError, match="at most 16 tokens"):
        LogitLens.of(long, tokenizer, "tiny")
    with pytest.raises(ValueError, match="lens None"):
        LogitLens.of(trace(model, ids, layers=[]), tokenizer, "tiny")


def test_the_stored_lens_is_small_and_whole():
    assert logit_lens.STORED.stat().st_size < 150_000
    assert len(LogitLens().as_html()) < 250_000
    for prompt in logit_lens.stored()["prompts"]:
        assert len(prompt["top"]) == 25
        for row in prompt["top"]:
            assert len(row) == len(prompt["tokens"])
            for five in row:
                shares = [share for _, share in five]
                assert shares == sorted(shares, reverse=True)
                assert sum(shares) <= 1003


def test_the_stored_lens_is_the_real_checkpoints(real_checkpoint):
    data = logit_lens.stored()
    if real_checkpoint.name != data["source"]:
        return
    model, tokenizer = load(real_checkpoint, dtype="float32")
    for prompt in data["prompts"]:
        ids = tokenizer.encode("".join(prompt["tokens"]))
        fresh = logit_lens.prompt_data("", trace(model, ids, layers=[], lens=5), tokenizer)
        assert fresh["tokens"] == prompt["tokens"]
        for old, new in zip(prompt["top"], fresh["top"], strict=True):
            for a, b in zip(old, new, strict=True):
                assert abs(a[0][1] - b[0][1]) <= 2
