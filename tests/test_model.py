"""The model as a whole: devices, ties, compilation, batches, what it refuses."""

import copy

import pytest
import torch
from layouts import DENSE, LAYOUTS, random_ids, random_model

from qwen2_book import KVCache, Qwen2, generate
from qwen2_book.attention import attend
from qwen2_book.rope import RotaryEmbedding, rotate


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_last_only_is_the_last(layout):
    model = random_model(LAYOUTS[layout])
    ids = random_ids(2, 20, model.config)
    torch.testing.assert_close(model(ids, last_only=True), model(ids)[:, -1:])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_of_eight_is_each_alone(layout):
    model = random_model(LAYOUTS[layout])
    ids = random_ids(8, 30, model.config).tolist()
    prompts = [row[: 3 + 3 * number] for number, row in enumerate(ids)]
    together = generate(model, prompts, 20).tolist()
    assert together == [generate(model, [prompt], 20)[0].tolist() for prompt in prompts]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_meta_takes_no_memory(layout):
    with torch.device("meta"):
        model = Qwen2(LAYOUTS[layout])
    assert all(p.is_meta for p in [*model.parameters(), *model.buffers()])
    model = model.to_empty(device="cpu")
    source = random_model(LAYOUTS[layout])
    model.load_state_dict(source.state_dict())
    ids = random_ids(1, 9, source.config)
    with torch.no_grad():
        assert torch.equal(model(ids), source(ids))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_other_dtypes_run_with_a_cache(dtype):
    model = random_model(LAYOUTS["sliding from layer 2"]).to(dtype)
    cache = KVCache(model.config, 1, 60, dtype=dtype)
    for part in random_ids(1, 50, model.config).split([20] + [1] * 30, 1):
        logits = model(part, cache)
        assert logits.dtype == dtype and logits.isfinite().all()


@pytest.mark.parametrize("layout", ["dense tied", "sliding from layer 2", "yarn"])
@torch.no_grad()
def test_compiled_is_equal(layout):
    model = random_model(LAYOUTS[layout])
    model.model.layers = model.model.layers[:2]
    model.config = LAYOUTS[layout].__class__(
        **{**LAYOUTS[layout].__dict__, "num_hidden_layers": 2, "layer_types": None}
    )
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    ids = random_ids(2, 20, model.config)
    torch.testing.assert_close(compiled(ids), model(ids), atol=1e-4, rtol=1e-4)
    with_cache = torch.compile(model, backend="aot_eager")
    cache = KVCache(model.config, 2, 40)
    parts = [with_cache(part, cache) for part in ids.split([14, 1, 1, 1, 1, 1, 1], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(ids), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_compiled_to_machine_code_is_equal():
    model = random_model(DENSE)
    compiled = torch.compile(model)
    ids = random_ids(2, 20, model.config)
    torch.testing.assert_close(compiled(ids), model(ids), atol=1e-4, rtol=1e-4)


def test_a_window_shares_the_weights_and_leaves_the_model_as_it_was():
    model = random_model(DENSE)
    ids = random_ids(1, 30, DENSE)
    with torch.no_grad():
        before = model(ids)
        sliding = model.with_window(4, sink_tokens=1, full_layers=2)
        assert sliding.config.layer_windows == (None, None, 4, 4)
        assert (sliding(ids) - before).abs().max() > 0.1
        assert torch.equal(model(ids), before)
        assert torch.equal(sliding.with_window(None)(ids), before)
    for one, other in zip(model.parameters(), sliding.parameters(), strict=True):
        assert one is other


def test_copies_and_conversions_keep_the_tie():
    model = random_model(LAYOUTS["dense tied"])
    for other in (copy.deepcopy(model), copy.deepcopy(model).to(torch.float64)):
        assert other.lm_head.weight is other.model.embed_tokens.weight
        assert other.lm_head.weight is not model.lm_head.weight


@pytest.mark.parametrize("shape", [(3,), (1, 0), (0, 3), (1, 2, 3)])
def test_shapes_that_are_no_prompts_are_refused(shape):
    with pytest.raises((ValueError, TypeError), match="token_ids"):
        Qwen2(DENSE)(torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("bad", [-1, 131, 10**12])
def test_ids_outside_the_vocabulary_are_refused(bad):
    with pytest.raises(ValueError, match=f"found id {bad}, expected 0 to 130"):
        Qwen2(DENSE)(torch.tensor([[1, bad]]))


def test_only_the_distance_matters_to_rotated_vectors():
    rotary = RotaryEmbedding(DENSE)
    query, key = torch.randn(2, 1, 1, 1, DENSE.head_dim)
    scores = {}
    for offset in (0, 5, 1000, 30_000):
        cos, sin = rotary(torch.tensor([[offset + 7]]))
        cos_key, sin_key = rotary(torch.tensor([[offset]]))
        scores[offset] = float((rotate(query, cos, sin) * rotate(key, cos_key, sin_key)).sum())
    for score in scores.values():
        assert score == pytest.approx(scores[0], abs=2e-2)
    cos, sin = rotary(torch.tensor([[0]]))
    assert torch.equal(rotate(query, cos, sin), query)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("queries", [1, 5])
def test_attention_by_its_definition(kv_heads, queries):
    query = torch.randn(2, 4, queries, 8)
    key, value = torch.randn(2, 2, kv_heads, 9, 8)
    mask = torch.rand(2, 1, queries, 9) < 0.6
    mask[..., 0] = True
    expected = torch.empty_like(query)
    for batch in range(2):
        for head in range(4):
            shared = head // (4 // kv_heads)
            scores = query[batch, head] @ key[batch, shared].T / 8**0.5
            scores[~mask[batch, 0]] = -torch.inf
            expected[batch, head] = scores.softmax(-1) @ value[batch, shared]
    torch.testing.assert_close(attend(query, key, value, mask), expected)
