"""Fast paths beside slow ones: rounding, fused and packed products, and every call of the model."""

import copy
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import DENSE, LAYOUTS, random_ids, random_model, replace
from tolerances import EXPERT_SHARE, TOLERANCES, tolerance
from torch import nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

import qwen2_book
from qwen2_book import CheckpointError, KVCache, Sampler, generate, load, optimize, stream, trace
from qwen2_book import fused as fused_module
from qwen2_book import packed as packed_module
from qwen2_book.dual_chunk import with_dual_chunk
from qwen2_book.packed import (
    PACKED_ROWS,
    WHOLE_ROWS,
    FusedLinear,
    PackedLinear,
    WholeLinear,
    pack,
    product,
)
from qwen2_book.quantize import FastQwen2
from qwen2_book.rounding import round_int4, round_int8, unround_int4, unround_int8
from qwen2_book.speculative import PromptLookup, speculate, with_layers
from qwen2_book.training.lora import add_lora, merge_lora

TEXTS = Path(__file__).parent.parent / "notebooks" / "data" / "07_texts"
BF16 = 2.0**-8  # half a unit in the last place, relative


# Rounding


@st.composite
def matrices(draw):
    """Matrices of all sizes of numbers, some with equal rows and outliers."""
    seed, exponent = draw(st.integers(0, 2**31)), draw(st.integers(-12, 6))
    rows, groups = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    weight = torch.randn(rows, 32 * groups, generator=torch.Generator().manual_seed(seed))
    if draw(st.booleans()):
        weight[0] = weight[0, 0]
    if draw(st.booleans()):
        weight[-1, 3] *= 100
    return weight * 2.0**exponent


@given(matrices())
@settings(deadline=None)
def test_int8_is_off_by_half_a_step(weight):
    steps, scale = round_int8(weight)
    off = (unround_int8(steps, scale) - weight).abs()
    assert (off <= (0.5 + 127 * BF16) * scale.float()[:, None]).all()
    assert steps.abs().amax() <= 127


@given(matrices())
@settings(deadline=None)
def test_int4_is_off_by_half_a_step(weight):
    steps, scale, zero = round_int4(weight)
    off = (unround_int4(steps, scale, zero) - weight).abs().unflatten(1, (-1, 32))
    slack = BF16 * (zero.float().abs() + 8 * scale.float())  # of the rounded scale and zero
    assert (off <= (0.5 * scale.float() + slack)[..., None] * (1 + BF16)).all()


def slow_int4(row: np.ndarray) -> np.ndarray:
    """One group by itself, in float64: all 16 levels are looked at for every weight."""
    scale = round_to_bfloat16((row.max() - row.min()) / 15)
    zero = round_to_bfloat16(row.min() + 8 * scale)
    levels = (np.arange(16) - 8) * scale + zero
    return np.array([levels[np.abs(levels - weight).argmin()] for weight in row])


def round_to_bfloat16(number: float) -> float:
    return float(torch.tensor(number, dtype=torch.float32).bfloat16())


@pytest.mark.parametrize("group", [32, 64])
def test_int4_equals_the_slow_reference(group):
    weight = torch.randn(12, 128, generator=torch.Generator().manual_seed(2))
    fast = unround_int4(*round_int4(weight, group)).numpy()
    for row, found in zip(weight.double().numpy(), fast, strict=True):
        expected = np.concatenate([slow_int4(part) for part in np.split(row, 128 // group)])
        assert np.abs(found - expected).max() < 1e-5


def test_equal_weights_stay_and_rows_are_whole_groups():
    same = torch.full((3, 64), 0.375)
    assert torch.equal(unround_int4(*round_int4(same)), same)
    assert not unround_int8(*round_int8(torch.zeros(2, 32))).any()
    with pytest.raises(ValueError, match="48 weights"):
        round_int4(torch.zeros(2, 48))


# Products


@pytest.mark.parametrize("emulated", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_many_bfloat16_rows_equal_linear(emulated, bias, monkeypatch):
    monkeypatch.setattr(packed_module, "EMULATED", emulated)
    monkeypatch.setattr(packed_module, "BLOCK", 7)
    torch.manual_seed(0)
    layer = nn.Linear(40, 24, bias=bias).bfloat16()
    x = torch.randn(2, 30, 40).bfloat16()
    found = product(x, layer.weight, layer.bias)
    assert found.dtype == torch.bfloat16
    exact = copy.deepcopy(layer).float()(x.float())
    assert (found.float() - exact).abs().max() <= exact.abs().max() * 2 * BF16


def test_the_last_row_of_a_prompt_does_not_copy_the_matrix():
    """torch.matmul expands a matrix for a row of many, and in bfloat16 bmm then copies it."""
    layer = FusedLinear(nn.Linear(32, 64, bias=False), dtype=torch.float32)
    for batch in (1, 2):
        x = torch.randn(batch, 9, 32)[:, -1:]
        with profile(activities=[ProfilerActivity.CPU]) as seen, torch.no_grad():
            found = layer(x)
        assert torch.allclose(found, x.clone() @ layer.weight.T, atol=1e-5)
        calls = [event.key for event in seen.key_averages()]
        assert "aten::linear" in calls and "aten::bmm" not in calls


@pytest.mark.skipif(not packed_module.LAID_OUT, reason="oneDNN has no such kernels here")
@pytest.mark.parametrize("shape", [(1, 1), (3, 9), (1, 40)])
def test_a_matrix_in_the_order_of_the_kernel_is_the_same_matrix(shape, monkeypatch):
    torch.manual_seed(0)
    layers = [nn.Linear(40, size, bias=size > 5).bfloat16() for size in (24, 24)]
    laid_out = FusedLinear(*layers, dtype=torch.bfloat16)
    monkeypatch.setattr(packed_module, "LAID_OUT", False)
    straight = FusedLinear(*layers, dtype=torch.bfloat16)
    assert laid_out.weight.is_mkldnn and not straight.weight.is_mkldnn
    x = torch.randn(*shape, 40).bfloat16()
    for part in (x, x[:, -1:]):
        exact = straight(part).float()
        assert (laid_out(part) - exact).abs().max() <= exact.abs().max() * 2 * BF16
        assert torch.equal(torch.cat(laid_out.split(part), -1), laid_out(part))


@pytest.mark.parametrize("kind, group", [("int8", 32), ("int4", 32), ("int4", 64), ("int4", 128)])
@pytest.mark.parametrize("sizes", [(16,), (33, 5, 5), (131,), (96, 96)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_equal_a_product_with_the_unrounded_matrix(kind, group, sizes, dtype):
    torch.manual_seed(1)
    layers = [nn.Linear(128, size, dtype=dtype) for size in sizes]
    fast = pack(*layers, kind=kind, group=group)
    weight = torch.cat([layer.weight for layer in layers]).detach()
    bias = torch.cat([layer.bias for layer in layers]).detach().float()
    rounded = round_int8(weight) if kind == "int8" else round_int4(weight, group)
    back = (unround_int8 if kind == "int8" else unround_int4)(*rounded)
    for shape in ((1, 1), (1, 3), (2, 5), (16, 1)):
        x = torch.randn(*shape, 128, dtype=dtype)
        exact = x.bfloat16().float() @ back.T + bias
        found = fast(x)
        assert found.dtype == dtype and found.shape == exact.shape
        assert (found.float() - exact).abs().max() <= 4 * BF16 * exact.abs().max()
        assert torch.equal(torch.cat(fast.split(x), -1), found)
    x = torch.randn(1, PACKED_ROWS + 1, 128, dtype=dtype)
    wide = torch.cat([layer(x) for layer in layers], -1)
    assert (fast(x) - wide).abs().max() <= (4 * BF16 if dtype == torch.bfloat16 else 1e-6)
    assert torch.equal(torch.cat(fast.split(x), -1), fast(x))
    assert all(w.data_ptr() == m.weight.data_ptr() for w, m in zip(fast.wide, layers, strict=True))


whole_numbers = pytest.mark.skipif(not packed_module.WHOLE, reason="FBGEMM is not there")


@whole_numbers
@pytest.mark.parametrize("width, sizes", [(128, (16,)), (40, (33, 5)), (999, (7, 96))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_numbers_give_the_product_of_the_rounded_matrix(width, sizes, dtype):
    torch.manual_seed(2)
    layers = [nn.Linear(width, size, dtype=dtype) for size in sizes]
    fast = WholeLinear(*layers, kind="int8")
    weight = torch.cat([layer.weight for layer in layers]).detach()
    bias = torch.cat([layer.bias for layer in layers]).detach().float()
    back = unround_int8(*round_int8(weight))
    x = torch.randn(2, 5, width, dtype=dtype)
    x[0, 1], x[0, 2], x[1, 0, 3] = 0, 1e-3 * x[0, 2], 500  # nothing, next to nothing, an outlier
    exact, found = x.float() @ back.T + bias, fast(x)
    assert found.dtype == dtype and torch.equal(torch.cat(fast.split(x), -1), found)
    steps = 2 * fast.most**2 * 2  # half a step of the second rounding, of the largest number
    off = x.float().abs().amax(-1, keepdim=True) / steps * back.abs().sum(1) * 1.01
    off += (exact.abs() + 2 * bias.abs()) * (2 * BF16 if dtype == torch.bfloat16 else 1e-5)
    assert ((found - exact).abs() <= off + 1e-6).all()
    assert (fast(x[:, :1]) - found[:, :1]).abs().max() <= 1e-6 + off.max() * BF16  # a row is alone
    x = torch.randn(WHOLE_ROWS + 1, width, dtype=dtype)
    wide = torch.cat([layer(x) for layer in layers], -1)
    assert (fast(x) - wide).abs().max() <= (4 * BF16 if dtype == torch.bfloat16 else 1e-6)


@whole_numbers
def test_a_row_is_off_by_half_a_step_of_the_second_rounding():
    layer = nn.Linear(64, 64, bias=False)
    nn.init.eye_(layer.weight)  # the products are the numbers themselves
    fast, x = WholeLinear(layer, kind="int8"), torch.randn(7, 64)
    weight = unround_int8(*round_int8(layer.weight.detach()))
    half = x.abs().amax(1, keepdim=True) / fast.most / (2 * fast.most) / 2
    assert ((fast(x) - x @ weight.T).abs() <= half * 1.01).all()


def test_large_matrices_take_whole_numbers_where_there_are_kernels(monkeypatch):
    layer = nn.Linear(64, 20)
    for there, large in ((True, 64 * 20), (True, 64 * 20 + 1), (False, 64 * 20)):
        monkeypatch.setattr(packed_module, "WHOLE", there and packed_module.WHOLE)
        monkeypatch.setattr(packed_module, "LARGE", large)
        whole = packed_module.WHOLE and large == 64 * 20
        assert isinstance(pack(layer, kind="int8", group=32), WholeLinear) is whole
        assert type(pack(layer, kind="int4", group=32)) is PackedLinear


def test_what_does_not_fit_the_kernels_stays_wider():
    def kind(width: int, group: int = 32):
        layer = pack(nn.Linear(width, 20), kind="int4", group=group)
        return (layer.kind, layer.group) if isinstance(layer, PackedLinear) else None

    assert [kind(64), kind(96, 64), kind(256, 128)] == [
        ("int4", 64 // 2),
        ("int4", 32),
        ("int4", 128),
    ]
    assert kind(48) == ("int8", 0)
    assert kind(40) is None


# The model


def passes(model, ids, mask=None):
    """Logits of one pass, and of chunks, single tokens and a ring with the cache."""
    yield model(ids, attention_mask=mask)
    for ring in (True, False):
        cache = KVCache(model.config, len(ids), ids.shape[1], dtype=model.dtype, ring=ring)
        parts, start = [], 0
        for size in (9, 1, 1, 17, 3, 1, ids.shape[1] - 32):
            part = slice(start, start + size)
            part_mask = None if mask is None else mask[:, part]
            parts.append(model(ids[:, part], cache, attention_mask=part_mask))
            start += size
        yield torch.cat(parts, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_the_fused_model_equals_the_plain_one(layout, padded, monkeypatch):
    monkeypatch.setattr(fused_module, "ROWS", 16)  # more than one block of rows
    config = LAYOUTS[layout]
    plain = random_model(config)
    ids = random_ids(2, 50, config)
    mask = torch.ones_like(ids).bool()
    if padded:
        mask[0, :6] = False
    exact = plain(ids, attention_mask=mask)
    fast = optimize(plain, "float32")
    for found in passes(fast, ids, mask if padded else None):
        assert (found - exact)[mask].abs().max() <= TOLERANCES[torch.float32]
    fast = optimize(plain, "bfloat16")
    assert fast.dtype == torch.bfloat16 and fast.config.dtype == "bfloat16"
    share = EXPERT_SHARE if config.num_experts else 1.0
    for found in passes(fast, ids, mask if padded else None):
        off = (found.float() - exact)[mask].abs().amax(-1)
        assert off.quantile(share) <= tolerance(torch.bfloat16, exact)
    assert torch.equal(plain(ids, attention_mask=mask), exact)  # the plain one is as it was


@torch.no_grad()
def unpacked(plain, kind: str, int8_parts=("head",)):
    """A plain model with the numbers that the packed weights stand for: the slow reference."""
    slow = copy.deepcopy(plain)
    if plain.config.tie_word_embeddings:
        slow.config = replace(plain.config, tie_word_embeddings=False)
        slow.lm_head.weight = nn.Parameter(plain.lm_head.weight.clone())
    for name, part in slow.named_modules():
        if isinstance(part, nn.Linear) and not name.endswith(("mlp.gate", "shared_expert_gate")):
            where = "attention" if "attn" in name else "feed_forward" if "mlp" in name else "head"
            if kind == "int8" or where in int8_parts or part.in_features % 32:
                part.weight.copy_(unround_int8(*round_int8(part.weight)))
            else:
                part.weight.copy_(unround_int4(*round_int4(part.weight, 32)))
    return slow


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "kind, parts", [("int8", []), ("int4", ["attention", "head"]), ("int4", [])]
)
@pytest.mark.parametrize("large", [0, 1 << 30])  # whole numbers everywhere (if at all), nowhere
@torch.no_grad()
def test_the_packed_model_equals_the_plain_one_with_rounded_weights(
    layout, kind, parts, large, monkeypatch
):
    monkeypatch.setattr(packed_module, "LARGE", large)
    monkeypatch.setattr(WholeLinear, "few", PACKED_ROWS)
    config = LAYOUTS[layout]
    plain = random_model(config)
    fast = optimize(plain, kind, int8_parts=parts)
    slow = unpacked(plain, kind, parts)
    ids = random_ids(1, 45, config)
    share = EXPERT_SHARE if config.num_experts else 1.0
    exact = slow(ids)
    assert (exact - plain(ids)).abs().max() > 0.1  # rounding is felt
    for ring in (True, False):
        cache = KVCache(config, 1, 45, ring=ring)
        parts = [fast(part, cache) for part in ids.split([13, 1, 1, 14, *[1] * 16], 1)]
        off = (torch.cat(parts, 1) - exact).abs().amax(-1)
        assert off.quantile(share) <= tolerance(torch.bfloat16, exact)
    if not config.num_experts:  # many rows: an expert gets few of them
        assert (fast(ids) - plain(ids)).abs().max() <= TOLERANCES[torch.float32]


@pytest.mark.parametrize("kind", ["int8", "int4"])
@torch.no_grad()
def test_a_packed_batch_gives_each_row_what_it_gets_alone(kind):
    plain = random_model(LAYOUTS["sliding from layer 2"]).bfloat16()
    fast = optimize(plain, kind)
    prompts = [random_ids(1, n, plain.config, seed=n)[0].tolist() for n in (3, 11, 7)]
    batch = generate(fast, prompts, 12, stop=[])
    slow = unpacked(plain.float(), kind)
    for prompt, row in zip(prompts, batch.tolist(), strict=True):
        logits = slow(torch.tensor([prompt + row]))[0, len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(row)[:, None])[:, 0]
        assert (logits.amax(1) - chosen).max() <= 2 * tolerance(torch.bfloat16, logits)


@torch.no_grad()
def test_every_call_works_on_the_fused_model():
    plain, tokenizer = load(device="cpu", dtype="float32")
    fast = optimize(plain, "float32")
    assert not fast(torch.zeros(1, 3, dtype=torch.long)).is_inference()  # an ordinary tensor
    messages = [{"role": "user", "content": "什么是窗户？"}]
    ids = tokenizer.apply_chat_template(messages)
    texts = ["".join(stream(m, tokenizer, messages, 24, Sampler(seed=1))) for m in (plain, fast)]
    assert texts[0] == texts[1] != ""
    assert torch.equal(*(generate(m, [ids, ids[-9:]], 16) for m in (plain, fast)))
    short = [m.with_window(8, sink_tokens=2) for m in (plain, fast)]
    assert isinstance(short[1], FastQwen2)
    assert torch.equal(*(generate(m, [ids], 16) for m in short))
    seen = [trace(m, ids, layers=[0, 2], rows=slice(-3, None), lens=2) for m in (plain, fast)]
    assert (seen[0].attention[2] - seen[1].attention[2]).abs().max() < 1e-5
    assert torch.allclose(seen[0].residual_norms, seen[1].residual_norms, rtol=1e-5)
    assert torch.equal(seen[0].lens_ids, seen[1].lens_ids)
    guesses = [speculate(m, ids, PromptLookup(), 12) for m in (plain, fast)]
    assert guesses[0] == guesses[1]
    assert fast.vocab_limit == plain.vocab_limit and fast.generation == plain.generation


def test_trace_and_speculation_work_on_packed_weights():
    model, tokenizer = load(device="cpu", quantize="int4")
    ids = tokenizer.encode("The window is")
    seen = trace(model, ids, layers=[1])
    assert torch.allclose(seen.attention[1].sum(-1), torch.ones(1), atol=1e-3)
    new = generate(model, [ids], 12)[0].tolist()
    assert len(speculate(model, ids, PromptLookup(), 12).token_ids) == len(new)


# Loading, and what is refused


def test_load_is_load_then_optimize_and_shares_the_file():
    plain, _ = load(device="cpu")
    ids = random_ids(1, 9, plain.config)
    for kind in ("int8", "int4"):
        loaded, tokenizer = load(device="cpu", quantize=kind)
        made = optimize(plain, kind)
        assert isinstance(loaded, FastQwen2) and not loaded.training
        assert loaded.vocab_limit == len(tokenizer) and loaded.name_or_path == "tiny"
        assert torch.equal(loaded(ids), made(ids))
        down = made.model.layers[1].mlp.down.wide[0]
        assert down.data_ptr() == plain.model.layers[1].mlp.down_proj.weight.data_ptr()
        assert made.model.embed_tokens.weight.data_ptr() == made.lm_head.wide[0].data_ptr()
        wide = sum(p.nbytes for p in plain.model.layers.parameters())
        packed = [part for part in made.model.layers.modules() if isinstance(part, PackedLinear)]
        bits = sum(part.nbytes for part in packed) / wide * 16
        assert {"int8": 8, "int4": 4.9}[kind] < bits < {"int8": 8.4, "int4": 5.5}[kind]
    assert not any(p.requires_grad for p in made.parameters())
    assert all(p.requires_grad for p in plain.parameters())


@pytest.mark.parametrize("weights", ["bfloat16", "int4"])
def test_what_an_optimised_model_cannot_do_is_said(weights, tmp_path):
    plain = random_model(replace(DENSE, dtype="bfloat16")).bfloat16()
    fast = optimize(plain, weights)
    refused = [
        (CheckpointError, "fused or packed", lambda: qwen2_book.save(fast, None, tmp_path / "new")),
        (CheckpointError, "fused or packed", lambda: with_layers(fast, [0])),
        (CheckpointError, "fused or packed", lambda: fast.load_state_dict({})),
        (ValueError, "found a FastQwen2", lambda: optimize(fast)),
        (ValueError, "is optimised", lambda: with_dual_chunk(fast, 16, 4)),
        (ValueError, "stays on cpu in torch.bfloat16", fast.float),
        (ValueError, "stays on cpu", lambda: fast.to("meta")),
        (ValueError, "no adapter", lambda: add_lora(fast)),
    ]
    for error, words, call in refused:
        with pytest.raises(error, match=words):
            call()
    assert not (tmp_path / "new").exists()
    assert fast.to("cpu", torch.bfloat16) is fast


def test_bad_arguments_are_named():
    plain = random_model(DENSE)
    adapted = add_lora(copy.deepcopy(plain))
    with torch.device("meta"):
        nowhere = qwen2_book.Qwen2(DENSE)
    refused = [
        ("weights: found 'int3'", lambda: optimize(plain, "int3")),
        ("group: found 48", lambda: optimize(plain, "int4", group=48)),
        ("int8_parts: found .'lm_head'", lambda: optimize(plain, "int4", int8_parts=["lm_head"])),
        ("int8_parts: found 'head'", lambda: optimize(plain, "int4", int8_parts="head")),
        ("found a DualChunkQwen2", lambda: optimize(with_dual_chunk(plain, 16, 4))),
        ("LoRALinear.*merge_lora", lambda: optimize(adapted)),
        ("run on the CPU, the model is on meta", lambda: optimize(nowhere, "int8")),
        ("quantize: found 'int3'", lambda: load(quantize="int3")),
        ("run on the CPU, not on meta", lambda: load(device="meta", quantize="int4")),
    ]
    for words, call in refused:
        with pytest.raises(ValueError, match=words):
            call()
    assert isinstance(optimize(merge_lora(adapted), "float32"), FastQwen2)


# The real checkpoint


@pytest.fixture(scope="module")
def real_texts(real_checkpoint):
    """50 tokens of each of three texts, and the float32 model's logits of them."""
    model, tokenizer = load(real_checkpoint, device="cpu", dtype="float32")
    names = ("english", "chinese", "code")
    texts = [(TEXTS / f"{name}.txt").read_text("utf-8") for name in names]
    ids = torch.tensor([tokenizer.encode(text)[:50] for text in texts])
    with torch.no_grad():
        return ids, model(ids)


def perplexity(logits: torch.Tensor, ids: torch.Tensor) -> float:
    return math.exp(cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))


@pytest.mark.parametrize("kind, loss, agreed", [("int8", 1.03, 0.93), ("int4", 1.08, 0.85)])
@torch.no_grad()
def test_perplexity_and_greedy_agreement(
    kind, loss, agreed, real_texts, real_checkpoint, record_property
):
    """Every token through packed weights: five columns of three rows at a time."""
    ids, exact = real_texts
    fast, _ = load(real_checkpoint, device="cpu", quantize=kind)
    cache = KVCache(fast.config, 3, 50, dtype=fast.dtype)
    logits = torch.cat([fast(part, cache) for part in ids.split(PACKED_ROWS // 3, 1)], 1).float()
    ratio = perplexity(logits, ids) / perplexity(exact, ids)
    same = (logits.argmax(-1) == exact.argmax(-1)).float().mean().item()
    record_property("perplexity", ratio)
    record_property("agreement", same)
    assert 0.9 < ratio <= loss, ratio
    assert same >= agreed, same


KERNELS = """
import torch
from qwen2_book import KVCache, load, optimize, packed

packed.LARGE = 1 << 12  # the tiny model's matrices are small
model, _ = load()
for weights in ("bfloat16", "int8", "int4"):
    fast = optimize(model.bfloat16(), weights)
    cache = KVCache(fast.config, 1, 90, dtype=fast.dtype)
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        for part in torch.arange(85)[None].split([80, 1, 4], 1):
            fast(part, cache)
"""


@pytest.mark.skipif(not packed_module.LAID_OUT, reason="oneDNN has no such kernels here")
def test_no_product_falls_back_to_a_reference_loop():
    """oneDNN does what it is asked, if need be in a plain loop: hundreds of times as slow."""
    run = [sys.executable, "-W", "ignore", "-c", KERNELS]
    done = subprocess.run(run, capture_output=True, text=True, cwd=TEXTS.parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    calls = [line.split(",") for line in done.stdout.splitlines() if ",primitive,exec," in line]
    kernels = {call[call.index("exec") + 3] for call in calls}
    assert any("brg" in kernel for kernel in kernels), kernels
    assert not any("ref" in kernel for kernel in kernels), kernels
