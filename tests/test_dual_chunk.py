"""Dual Chunk Attention: plain inside one piece, equal to the formula written out beyond it."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import LAYOUTS, random_ids, random_model

from qwen2_book import KVCache, Qwen2, generate
from qwen2_book.config import RopeScaling
from qwen2_book.dual_chunk import (
    dual_chunk_attention,
    query_positions,
    relative_positions,
    with_dual_chunk,
)
from qwen2_book.rope import RotaryEmbedding, rotate

DENSE = [name for name, config in LAYOUTS.items() if not any(config.layer_windows)]
SIZES = st.tuples(st.integers(1, 12), st.integers(0, 12)).map(lambda s: (sum(s), min(s)))


def distance(i, j, chunk, local):
    """How far key j seems to query i, by the three cases of the paper (arXiv:2402.17463)."""
    piece = chunk - local
    if i // piece == j // piece:  # intra-chunk: the true distance
        return i - j
    if i // piece == j // piece + 1:  # successive chunk: the true one, as far as the local part
        return i - j if i % piece <= local else chunk - j % piece
    return chunk - j % piece  # inter-chunk


def directly(model, query, key, value, chunk, local):
    """One softmax over all keys, each pair turned by its own distance: slow and obvious."""
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    rotary, out = RotaryEmbedding(model.config), torch.zeros_like(query)
    for i in range(query.shape[2]):
        seems = torch.tensor([distance(i, j, chunk, local) for j in range(i + 1)])
        turns = rotary(seems[:, None])  # (keys, 1, pairs): a position for every key
        turned = rotate(query[0, :, i].expand(i + 1, -1, -1).unsqueeze(2), *turns)
        scores = (turned[:, :, 0] * key[0, :, : i + 1].transpose(0, 1)).sum(-1) * rotary.factor
        weights = (scores / math.sqrt(query.shape[3])).softmax(0)
        out[0, :, i] = (weights[..., None] * value[0, :, : i + 1].transpose(0, 1)).sum(0)
    return out


@given(length=st.integers(1, 60), size=SIZES)
def test_distances(length, size):
    chunk, local = size
    table = relative_positions(length, chunk, local)
    true = torch.arange(length)[:, None] - torch.arange(length)
    seen = true >= 0
    assert (table[~seen] == -1).all()
    assert int(table[seen].min()) >= 0 and int(table[seen].max()) <= chunk
    near = seen & (true <= local + 1)  # what `local` promises, across a cut as well
    assert torch.equal(table[near], true[near])
    if length <= chunk - local:
        assert torch.equal(table[seen], true[seen])
    assert (table <= true)[seen].all()
    for i in range(length):
        assert table[i, : i + 1].tolist() == [distance(i, j, *size) for j in range(i + 1)]


def test_the_promise_is_no_larger():
    """A key at `local + 2` may seem nearer; and of two keys the farther one may seem the nearer."""
    table = relative_positions(2_000, 768, 64)
    true = torch.arange(2_000)[:, None] - torch.arange(2_000)
    assert int(true[(true >= 0) & (table != true)].min()) == 66
    row = relative_positions(40, 14, 4)[29]
    assert (int(row[20]), int(row[19])) == (9, 5)


@torch.no_grad()
def test_with_yarn_as_qwen2_uses_it():
    """One piece is the YaRN model itself; beyond, a cache gives what one pass gives."""
    yarn = RopeScaling(4.0, original_max_position_embeddings=32)
    config = dataclasses.replace(LAYOUTS["dense tied"], rope_scaling=yarn)
    model, ids = random_model(config), random_ids(2, 41, config)
    torch.testing.assert_close(with_dual_chunk(model, 50, 9)(ids), model(ids), atol=1e-4, rtol=0)
    chunked, cache = with_dual_chunk(model, 12, 4), KVCache(config, 2, 41)
    parts = [chunked(part, cache) for part in ids.split([30, 1, 10], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), chunked(ids), atol=1e-4, rtol=0)


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 50), size=SIZES, block=st.integers(1, 60), name=st.sampled_from(DENSE))
@torch.no_grad()
def test_equal_to_the_formula_written_out(length, size, block, name):
    model = random_model(LAYOUTS[name])
    heads, kv_heads = model.config.num_attention_heads, model.config.num_key_value_heads
    generator = torch.Generator().manual_seed(length)
    query, key, value = (
        torch.randn(1, n, length, model.config.head_dim, generator=generator)
        for n in (heads, kv_heads, kv_heads)
    )
    at = torch.arange(length)[None]
    turns = [model.model.rotary(place) for place in query_positions(at, *size)]
    queries = torch.stack([rotate(query, *turn) for turn in turns])
    piece = size[0] - size[1]
    ours = dual_chunk_attention(queries, rotate(key, *turns[0]), value, at, at, piece, block)
    torch.testing.assert_close(ours, directly(model, query, key, value, *size), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", DENSE)
@torch.no_grad()
def test_one_piece_is_the_model_itself(name):
    model = random_model(LAYOUTS[name])
    ids = random_ids(2, 40, model.config)
    torch.testing.assert_close(with_dual_chunk(model, 50, 10)(ids), model(ids), atol=1e-4, rtol=0)
    assert (with_dual_chunk(model, 12, 4)(ids) - model(ids))[:, 9:].abs().max() > 1e-3


@pytest.mark.parametrize("name", DENSE)
@torch.no_grad()
def test_pieces_through_a_cache_give_the_same(name):
    model = with_dual_chunk(random_model(LAYOUTS[name]), 12, 4)
    ids = random_ids(2, 41, model.config)
    cache = KVCache(model.config, 2, 41)
    parts = [model(part, cache) for part in ids.split([11, 1, 1, 17, 1, 10], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(ids), atol=1e-4, rtol=0)


def test_a_padded_batch_is_each_alone():
    model = with_dual_chunk(random_model(LAYOUTS["dense tied"]), 12, 4)
    prompts = [row[: 3 + 9 * n] for n, row in enumerate(random_ids(4, 40, model.config).tolist())]
    together = generate(model, prompts, 20, stop=[]).tolist()
    assert together == [generate(model, [prompt], 20, stop=[])[0].tolist() for prompt in prompts]


def test_the_weights_are_shared_and_the_model_stays_as_it_was():
    model = random_model(LAYOUTS["dense tied"])
    ids = random_ids(1, 30, model.config)
    with torch.no_grad():
        before = model(ids)
        twin = with_dual_chunk(model, 8, 2)
        assert twin.lm_head.weight is model.lm_head.weight
        assert twin(ids).shape == before.shape
        assert torch.equal(model(ids), before)
    assert type(model) is Qwen2


@pytest.mark.parametrize("size", [(8, 5), (0, 0), (8, -1), (-4, -9)])
def test_sizes_without_meaning_are_refused(size):
    with pytest.raises(ValueError, match="expected 0 <= local"):
        with_dual_chunk(random_model(LAYOUTS["dense tied"]), *size)


def test_a_sliding_model_is_refused():
    with pytest.raises(ValueError, match="with_window"):
        with_dual_chunk(random_model(LAYOUTS["sliding"]), 8, 2)
