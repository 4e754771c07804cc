"""Steps of fixed shapes: equal to the model, and recorded once they may be repeated."""

import pytest
import torch
from layouts import DENSE, LAYOUTS, random_ids, random_model, replace
from torch.fx.experimental.proxy_tensor import make_fx

from qwen2_book import graph
from qwen2_book.cache import KVCache
from qwen2_book.dual_chunk import with_dual_chunk
from qwen2_book.graph import FixedStep
from qwen2_book.quantize import optimize

SLIDING = LAYOUTS["sliding from layer 2"]
SINKS = replace(SLIDING, sink_tokens=2, num_hidden_layers=3)


def traced(step):
    """What a CUDA graph does, without a GPU: the calls of one step, repeated on the same memory.

    Every number that Python knew while it recorded is a constant from then on.
    """
    return make_fx(lambda: step())()


def cache_for(model, batch=2, capacity=44):
    return KVCache(model.config, batch, capacity, model.device, model.dtype, ring=False)


def equal_steps(model, ids, loose):
    """Seven tokens as a prompt, the rest one by one, beside the model itself."""
    caches = cache_for(model), cache_for(model)
    for cache in caches:
        model(ids[:, :7], cache)
    step = FixedStep(model, caches[1])
    for k in range(7, ids.shape[1]):
        expected = model(ids[:, k : k + 1], caches[0])
        torch.testing.assert_close(step(ids[:, k : k + 1]), expected, rtol=loose, atol=loose)
    return step


@pytest.fixture(params=["as it is", "recorded"])
def recording(request, monkeypatch):
    monkeypatch.setattr(graph, "BLOCK", 16)
    if request.param == "recorded":
        monkeypatch.setattr(FixedStep, "_recorded", lambda self, step: traced(step))


@pytest.mark.parametrize("weights", [None, "float32", "int4"])
@pytest.mark.parametrize("config", [LAYOUTS["yarn"], SINKS], ids=["yarn", "windows and sinks"])
@torch.no_grad()
def test_every_step_is_the_models(config, weights, recording):
    """Through three blocks of columns, the last one cut short by the capacity."""
    model = random_model(config)
    model = model if weights is None else optimize(model, weights)
    ids = random_ids(2, 43, model.config)
    step = equal_steps(model, ids, 1e-4)
    assert sorted(step.steps) == [16, 32, 44]


@torch.no_grad()
def test_padded_prompts_taken_back_columns_and_the_model_between(recording):
    model = random_model(SLIDING)
    ids, mask = random_ids(2, 30, model.config), torch.ones(2, 6, dtype=torch.bool)
    mask[1, :4] = False
    caches = cache_for(model), cache_for(model)
    for cache in caches:
        model(ids[:, :6], cache, attention_mask=mask)
    step = FixedStep(model, caches[1])
    for k, back in ((6, 0), (7, 0), (8, 5), (9, 0), (10, 9), (11, 0), (12, 0)):
        expected = model(ids[:, k : k + 1], caches[0])
        torch.testing.assert_close(step(ids[:, k : k + 1]), expected, rtol=1e-4, atol=1e-4)
        for cache in caches if back else ():
            cache.truncate(cache.length - 1)
            model(ids[:, back : back + 2], cache)
    for cache in caches:  # a new text without padding, over what the padded one left
        cache.reset()
        model(ids[:, :5], cache)
    for k in (5, 6, 7):
        expected = model(ids[:, k : k + 1], caches[0])
        torch.testing.assert_close(step(ids[:, k : k + 1]), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_experts_run_as_they_are():
    model = random_model(LAYOUTS["experts"])
    equal_steps(model, random_ids(2, 9, model.config), 1e-4)


def test_refused():
    model = random_model(SLIDING)
    with pytest.raises(ValueError, match="ring=False"):
        FixedStep(model, KVCache(model.config, 1, 200))
    with pytest.raises(ValueError, match="found a DualChunkQwen2"):
        FixedStep(with_dual_chunk(random_model(DENSE), 16, 4), cache_for(model))
    step = FixedStep(model, cache_for(model, 1, 2))
    with pytest.raises(ValueError, match=r"\(1, 2\), expected \(1, 1\)"):
        step(torch.zeros(1, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="found id 999"):
        step(torch.full((1, 1), 999))
    for _ in range(2):
        step(torch.zeros(1, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="room for 2 tokens"):
        step(torch.zeros(1, 1, dtype=torch.long))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
@pytest.mark.parametrize("fast", [False, True])
@torch.no_grad()
def test_a_graph_on_a_gpu(monkeypatch, fast):
    monkeypatch.setattr(graph, "BLOCK", 16)
    model = random_model(SLIDING).to("cuda")
    model = optimize(model, "float32") if fast else model
    ids = random_ids(2, 43, model.config).to("cuda")
    equal_steps(model, ids, 1e-3)
    with pytest.raises(ValueError, match="mixture of experts"):
        experts = random_model(LAYOUTS["experts"]).to("cuda")
        FixedStep(experts, cache_for(experts))
