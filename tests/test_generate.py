"""Generation: stops, padding, streams, and what it refuses."""

import sys

import pytest
import torch

from qwen2_book.cache import KVCache
from qwen2_book.config import Qwen2Config
from qwen2_book.generate import generate, pad_id, pad_left, stop_ids, stream
from qwen2_book.model import Qwen2
from qwen2_book.sampling import Sampler
from qwen2_book.tokenizer import Tokenizer

MODULE = sys.modules["qwen2_book.generate"]  # the package's `generate` is the function
CONFIG = Qwen2Config(
    vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, rope_theta=1e4, dtype="float32",
)  # fmt: skip
PROMPTS = [[5, 17, 250, 9, 33], [7], [100, 101, 102, 5, 6, 7, 8, 9, 10], [299, 0]]


@pytest.fixture(scope="module")
def model() -> Qwen2:
    torch.manual_seed(0)
    model = Qwen2(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim == 2 else 1)
    return model


def by_hand(model: Qwen2, prompt: list[int], steps: int) -> list[int]:
    """No cache, no batch: run everything again for each token."""
    ids = list(prompt)
    for _ in range(steps):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_equal_to_running_everything_again(model):
    for prompt in PROMPTS:
        expected = by_hand(model, prompt, 12)
        assert generate(model, torch.tensor([prompt]), 12).tolist() == [expected]


def test_a_batch_of_lists_is_equal_to_one_by_one(model):
    assert generate(model, PROMPTS, 12).tolist() == [by_hand(model, p, 12) for p in PROMPTS]


@pytest.mark.parametrize("window", [1, 3, 8])
@pytest.mark.parametrize("sinks", [0, 2])
def test_a_batch_with_a_window(model, window, sinks):
    sliding = model.with_window(window, sinks)
    expected = [by_hand(sliding, p, 60) for p in PROMPTS]
    assert generate(sliding, PROMPTS, 60).tolist() == expected


def test_long_prompts_are_taken_in_chunks(model, monkeypatch):
    monkeypatch.setattr(MODULE, "PREFILL_CHUNK", 4)
    assert generate(model, PROMPTS, 8).tolist() == [by_hand(model, p, 8) for p in PROMPTS]


def test_rows_that_have_stopped_are_filled_with_the_pad_id(model):
    plain = [by_hand(model, p, 12) for p in PROMPTS]
    stop = plain[0][3]
    rows = generate(model, PROMPTS, 12, stop=[stop]).tolist()
    for row, free in zip(rows, plain, strict=True):
        end = free.index(stop) + 1 if stop in free else 12  # the stop token itself is included
        assert row[:end] == free[:end][: len(row)]
        assert set(row[end:]) <= {pad_id(model)}


def test_generation_ends_when_all_rows_have_stopped(model):
    first = by_hand(model, PROMPTS[0], 1)
    assert generate(model, [PROMPTS[0]], 50, stop=first).tolist() == [first]


def test_where_stop_and_pad_ids_come_from(model):
    plain = Qwen2(CONFIG)
    assert (stop_ids(plain), pad_id(plain)) == ([], 0)
    plain.generation = {"eos_token_id": [4, 5]}
    assert (stop_ids(plain), pad_id(plain)) == ([4, 5], 4)
    plain.generation = {"eos_token_id": 4, "pad_token_id": 9}
    assert (stop_ids(plain), pad_id(plain)) == ([4], 9)
    assert stop_ids(plain, []) == []
    assert stop_ids(plain, [8]) == [8]


def test_rows_beyond_the_tokenizer_are_never_sampled(model):
    free = Qwen2(CONFIG)
    free.load_state_dict(model.state_dict())
    with torch.no_grad():
        free.lm_head.weight[200:] = free.lm_head.weight[:100] * 3
    free.vocab_limit = 200
    for sampler in (None, Sampler(temperature=2.0, seed=0)):
        assert int(generate(free, PROMPTS, 30, sampler).max()) < 200
    free.vocab_limit = None
    assert int(generate(free, PROMPTS, 30).max()) >= 200


def test_a_seed_repeats_itself(model):
    sampler = Sampler(temperature=1.5, seed=3)
    first, again = (generate(model, PROMPTS, 20, sampler).tolist() for _ in range(2))
    other = generate(model, PROMPTS, 20, Sampler(temperature=1.5, seed=4)).tolist()
    assert first == again != other


def test_pad_left():
    ids, mask = pad_left([[1, 2, 3], [4]], 0)
    assert ids.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert mask.tolist() == [[True] * 3, [False, False, True]]


@pytest.mark.parametrize("prompts", [[], [[]], [[1], []], torch.zeros((1, 0), dtype=torch.long)])
def test_an_empty_prompt_is_refused(model, prompts):
    with pytest.raises(ValueError, match=r"endoftext"):
        generate(model, prompts, 3)


@pytest.mark.parametrize("bad", [-1, 300, 10**9])
def test_an_unknown_id_is_refused(model, bad):
    with pytest.raises(ValueError, match=f"found id {bad}, expected 0 to 299"):
        generate(model, [[1, bad]], 3)


def test_a_prompt_longer_than_the_cache_is_refused(model):
    cache = KVCache(CONFIG, 1, 4)
    with pytest.raises(ValueError, match=r"room for 4 tokens and holds 0; 5 more do not fit"):
        model(torch.tensor([PROMPTS[0]]), cache)


def test_a_cache_of_another_batch_or_dtype_is_refused(model):
    for cache in (KVCache(CONFIG, 2, 9), KVCache(CONFIG, 1, 9, dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match="cache: found"):
            model(torch.tensor([[1, 2]]), cache)


@pytest.mark.parametrize(
    "part", ["model.layers.1.self_attn.v_proj", "model.layers.2.mlp.up_proj", "lm_head"]
)
def test_nan_is_reported_with_the_part_that_made_it(model, part):
    broken = Qwen2(CONFIG)
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.get_parameter(f"{part}.weight")[3, 0] = torch.nan
    with pytest.raises(ValueError, match=rf"first part to go wrong is {part} "):
        generate(broken, [[1, 2, 3]], 3)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["héllo wörld 你好，世界 " * 9], vocab_size=262)


def test_a_stream_is_the_generated_text(model, tokenizer):
    assert len(tokenizer) <= CONFIG.vocab_size
    small = Qwen2(CONFIG)
    small.load_state_dict(model.state_dict())
    small.vocab_limit = len(tokenizer)
    sampler = Sampler(temperature=2.0, seed=0)
    for prompt in ("héllo", [{"role": "user", "content": "你好"}]):
        plain = isinstance(prompt, str)
        ids = tokenizer.encode(prompt) if plain else tokenizer.apply_chat_template(prompt)
        new = generate(small, [ids], 80, sampler, stop=[])[0].tolist()
        pieces = list(stream(small, tokenizer, prompt, 80, sampler, stop=[]))
        control = set(tokenizer.special_ids.values())
        assert "".join(pieces) == tokenizer.decode([i for i in new if i not in control])
        assert all(pieces)


def test_a_stream_never_breaks_a_character(model, tokenizer, monkeypatch):
    wanted = list("你好😀é".encode())
    ids = [tokenizer.encode(" ")[0]]
    tokens = [
        next(i for i in range(len(tokenizer)) if tokenizer.token_bytes(i) == bytes([b]))
        for b in wanted
    ]
    monkeypatch.setattr(MODULE, "_steps", lambda *a: iter(torch.tensor([t]) for t in tokens))
    assert list(stream(model, tokenizer, tokenizer.decode(ids))) == ["你", "好", "😀", "é"]
    tokens.pop()
    assert (
        list(stream(model, tokenizer, " "))[-1] == "\ufffd"
    )  # an unfinished character, at the end
