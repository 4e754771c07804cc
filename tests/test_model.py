"""The model as a whole: devices, ties, compilation, batches, what it refuses."""

import copy
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

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


COMPILED = """
import sys, torch, torch._dynamo
sys.path[:0] = [sys.argv[1]]
from layouts import DENSE, LAYOUTS, random_ids, random_model, replace
from qwen2_book.cache import KVCache

torch.set_num_threads(1)
for layout in ("dense tied", "sliding from layer 2", "yarn", "experts"):
    model = random_model(replace(LAYOUTS[layout], num_hidden_layers=3))
    ids = random_ids(2, 20, model.config)
    machine_code = layout == "sliding from layer 2"
    settings = {} if machine_code else {"backend": "aot_eager"}
    whole = torch.compile(model, fullgraph=layout != "experts", **settings)
    with torch.no_grad():
        assert (whole(ids) - model(ids)).abs().max() < 1e-4, layout
        torch._dynamo.reset()
        stepwise, cache = torch.compile(model, backend="aot_eager"), KVCache(model.config, 2, 40)
        parts = [stepwise(part, cache) for part in ids.split([14, 1, 1, 1, 1, 2], 1)]
        assert (torch.cat(parts, 1) - model(ids)).abs().max() < 1e-4, layout
    torch._dynamo.reset()
model = random_model(DENSE)
ids = random_ids(2, 20, DENSE)
gradients = []
for network in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
    model.zero_grad()
    network(ids).square().mean().backward()
    gradients.append(model.model.layers[0].self_attn.k_proj.weight.grad.clone())
torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)
"""

COMPILED_FAST = """
import sys, torch, torch._dynamo
sys.path[:0] = [sys.argv[1]]
from layouts import LAYOUTS, random_ids, random_model, replace
from qwen2_book import optimize, packed
from qwen2_book.cache import KVCache

torch.set_num_threads(1)
packed.LARGE = 5000  # small matrices are multiplied in whole numbers, too
model = random_model(replace(LAYOUTS["sliding from layer 2"], num_hidden_layers=3))
ids = random_ids(2, 20, model.config)
for weights in ("float32", "bfloat16", "int8", "int4"):
    fast = optimize(model if weights == "float32" else model.bfloat16(), weights)
    kinds = {type(part).__name__ for part in fast.modules()}
    assert ("PackedLinear" in kinds) == (weights in ("int8", "int4")), kinds
    plain_matrices = weights == "float32"
    settings = {} if plain_matrices else {"backend": "aot_eager"}
    whole = torch.compile(fast, fullgraph=plain_matrices, **settings)
    loose = 1e-4 if plain_matrices else 0.05 * fast(ids).float().abs().max()
    with torch.no_grad():
        assert (whole(ids) - fast(ids)).abs().max() < loose, weights
        torch._dynamo.reset()
        stepwise = torch.compile(fast, backend="aot_eager")
        logits = []
        for run in (fast, stepwise):
            cache = KVCache(fast.config, 2, 40, dtype=fast.dtype)
            logits.append(torch.cat([run(part, cache) for part in ids.split([14, 1, 1, 4], 1)], 1))
        assert (logits[0] - logits[1]).abs().max() < loose, weights
    torch._dynamo.reset()
"""


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
@pytest.mark.parametrize("script", [COMPILED, COMPILED_FAST], ids=["plain", "optimised"])
def test_compiled_is_equal(script):
    """In a process of its own, since the shape checks of this one are no part of the model."""
    here = str(Path(__file__).parent)
    run = [sys.executable, "-W", "ignore", "-c", script, here]
    done = subprocess.run(run, capture_output=True, text=True, cwd=Path(here).parent)
    assert done.returncode == 0, done.stderr[-3000:]


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


def test_a_rehearsal_on_meta_does_no_harm():
    """Operations may be counted on meta before the weights arrive."""
    with torch.device("meta"):
        model = Qwen2(DENSE)
    assert model(torch.zeros((2, 5), dtype=torch.long, device="meta")).shape == (2, 5, 131)
    source, ids = random_model(DENSE), random_ids(1, 5, DENSE)
    model.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(model(ids), source(ids))


def test_a_model_can_be_pickled():
    """Worker processes and torch.save need it."""
    model, ids = random_model(LAYOUTS["dense tied"]), random_ids(1, 5, DENSE)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(ids), model(ids))
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_loading_keeps_the_tie():
    source = random_model(LAYOUTS["dense tied"])
    for assign in (False, True):
        model = Qwen2(source.config)
        model.load_state_dict(source.state_dict(), assign=assign)
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert len([*model.parameters()]) == len([*source.parameters()])


@pytest.mark.parametrize("shape", [(1, 7), (2, 3), (1, 2)])
def test_a_mask_of_another_shape_is_refused(shape):
    """transformers wants a mask over the cached tokens, too; here it covers the tokens passed."""
    with pytest.raises(ValueError, match=r"attention_mask: found shape .*expected that of"):
        Qwen2(DENSE).check(torch.zeros((1, 3), dtype=torch.long), None, torch.ones(shape))


@torch.no_grad()
def test_integer_and_bool_masks_are_the_same():
    model, ids = random_model(DENSE), random_ids(2, 6, DENSE)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    assert torch.equal(model(ids, attention_mask=mask), model(ids, attention_mask=mask.bool()))
    all_real = torch.ones_like(ids, dtype=torch.bool)
    assert torch.equal(model(ids, attention_mask=all_real), model(ids))


@pytest.mark.parametrize("layout", ["dense untied", "sliding", "experts"])
@torch.no_grad()
def test_the_future_has_no_influence(layout):
    model = random_model(LAYOUTS[layout])
    ids = random_ids(1, 20, model.config)
    other = ids.clone()
    other[0, 12:] = (other[0, 12:] + 1) % 131
    difference = (model(ids) - model(other))[0].abs().amax(-1)
    assert difference[:12].max() < 1e-5 and difference[12:].min() > 1e-3


@pytest.mark.parametrize("padding", [0, 9])
@torch.no_grad()
def test_float16_with_weights_that_overflow_when_careless(padding):
    """Query and key biases of 300 give scores of 360,000 before scaling; see the fact sheet."""
    model = random_model(DENSE)
    for layer in model.model.layers:
        layer.self_attn.q_proj.bias += 300
        layer.self_attn.k_proj.bias += 300
    model, ids = model.to(torch.float16), random_ids(1, 20, DENSE)
    mask = torch.arange(20)[None] >= padding
    assert model(ids, attention_mask=mask).isfinite().all()
    cache = KVCache(DENSE, 1, 20, dtype=torch.float16)
    for part, seen in zip(ids.split([12] + [1] * 8, 1), mask.split([12] + [1] * 8, 1), strict=True):
        assert model(part, cache, attention_mask=seen).isfinite().all()
