"""The ladder on the real checkpoint: logits, greedy text, perplexity, batches, GGUF."""

import pytest
import torch
from layouts import TOLERANCES
from texts import SAMPLES

from qwen2_book import KVCache, Qwen2, generate, load, trace
from qwen2_book.checkpoint import gguf_weights
from qwen2_book.generate import stop_ids
from qwen2_book.gguf_file import read_head

transformers = pytest.importorskip("transformers")

PROMPTS = [
    "Explain in two sentences why the sky is blue.",
    "List three uses of a window.",
    "用两句话介绍长城。",
    "请写一首关于秋天的小诗。",
    "Écris une phrase sur la mer.",
    "Nenne drei Tiere, die fliegen können.",
    "Напиши одно предложение о зиме.",
    "Write a Python function that reverses a string.",
    "def fibonacci(n):",
    "SELECT name FROM",
]
TEXT = (
    "A lighthouse keeper wrote down the weather every evening for thirty years. On most days there "
    "was little to say: wind from the west, a few clouds, two ships. But when a young historian "
    "came to read the books, she found that the small entries told a large story. The ice came "
    "later every winter, the herring left the bay, and the names of the ships changed from "
    "families to companies. 守塔人每天傍晚都记下天气，一写就是三十年。多数日子没什么可写：西风，几朵云，两条船。"
    "可是后来有位年轻的历史学者来读这些本子，她发现这些短短的记录合在一起，讲的是一个很长的故事。\n"
    "def average(numbers):\n    total = 0\n    for number in numbers:\n        total += number\n"
    "    return total / len(numbers)\n"
) * 3


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def real(real_checkpoint):
    return load(real_checkpoint, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def reference(real_checkpoint):
    kind = transformers.AutoModelForCausalLM
    return kind.from_pretrained(real_checkpoint, dtype=torch.float32).eval()


def prompt_ids(tokenizer, text: str) -> list[int]:
    raw = text.startswith(("def", "SELECT"))
    return (
        tokenizer.encode(text)
        if raw
        else tokenizer.apply_chat_template([{"role": "user", "content": text}])
    )


@torch.no_grad()
def test_logits(real, reference, record_property):
    model, tokenizer = real
    worst = 0.0
    for text in SAMPLES[:9] + SAMPLES[12:14]:
        ids = torch.tensor([tokenizer.encode(text)])
        ours, theirs = model(ids), reference(ids).logits
        worst = max(worst, float((ours - theirs).abs().max()))
    record_property("difference", worst)
    assert worst <= TOLERANCES[torch.float32]


@pytest.fixture(scope="module")
def greedy(real):
    """The prompts, and 64 greedy tokens of each, from one batch padded on the left."""
    model, tokenizer = real
    prompts = [prompt_ids(tokenizer, text) for text in PROMPTS]
    assert len({len(prompt) for prompt in prompts}) > 4
    rows = generate(model, prompts, 64).tolist()
    stops = set(stop_ids(model))
    ends = [next((i + 1 for i, id_ in enumerate(row) if id_ in stops), 64) for row in rows]
    return prompts, [row[:end] for row, end in zip(rows, ends, strict=True)]


@torch.no_grad()
def test_greedy_text_of_ten_prompts(greedy, reference):
    """Every token is what the reference takes after the same beginning, read alone, unpadded.

    By induction that is the reference's own greedy text; one prompt also goes through its `generate`.
    """
    for prompt, answer in zip(*greedy, strict=True):
        assert len(answer) > 3
        logits = reference(torch.tensor([prompt + answer])).logits
        assert logits[0, len(prompt) - 1 : -1].argmax(-1).tolist() == answer
    prompt, answer = (part[2] for part in greedy)
    settings = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    settings |= {"repetition_penalty": 1.0, "max_new_tokens": 24}
    ids = torch.tensor([prompt])
    generated = reference.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    assert generated[0, len(prompt) :].tolist() == answer[:24]


@torch.no_grad()
def test_perplexity_to_four_digits(real, reference):
    model, tokenizer = real
    ids = torch.tensor([tokenizer.encode(TEXT)])
    assert ids.shape[1] > 400

    def perplexity(logits):
        return float(torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).exp())

    ours, theirs = perplexity(model(ids)), perplexity(reference(ids).logits)
    assert f"{ours:.4g}" == f"{theirs:.4g}"
    assert 1.5 < ours < 20


def test_a_padded_batch_gives_the_text_of_each_prompt_alone(real, greedy):
    model, _ = real
    prompts, answers = greedy
    for row in (0, 3, 8):
        alone = generate(model, [prompts[row]], 24)[0].tolist()
        assert alone == answers[row][:24]


@torch.no_grad()
def test_window_and_ring_on_the_real_model(real):
    model, tokenizer = real
    ids = torch.tensor([tokenizer.encode(TEXT)[:150]])
    sliding = model.with_window(24)
    whole = sliding(ids)
    cache = KVCache(sliding.config, 1, 150)
    parts = [sliding(part, cache) for part in ids.split([100] + [1] * 10 + [40], 1)]
    assert (torch.cat(parts, 1) - whole).abs().max() < 1e-3  # logits of order 30
    assert model.config.layer_windows == (None,) * 24


def test_what_is_known_of_its_heads(real):
    """The measurements of the book's plan, on other text: the same heads do the same."""
    model, tokenizer = real
    seen = trace(model, tokenizer.encode(TEXT)[:128])
    rows = torch.arange(1, 128)
    previous = seen.attention[8][0, 7, rows, rows - 1].mean()
    assert previous > 0.6
    sinks = torch.stack([seen.attention[layer][0, :, rows, 0].mean() for layer in range(3, 23)])
    assert 0.15 < sinks.mean() < 0.6
    norms = seen.residual_norms[:, 0]
    assert norms[10, 0] > 20 * norms[10, 5:].median()


@torch.no_grad()
def test_bfloat16(real, real_checkpoint):
    model, tokenizer = real
    half, _ = load(real_checkpoint, device="cpu")
    other = transformers.AutoModelForCausalLM.from_pretrained(real_checkpoint, dtype="auto").eval()
    ids = torch.tensor([tokenizer.encode(TEXT)[:100]])
    ours, theirs, exact = half(ids).float(), other(ids).logits.float(), model(ids)
    scale = exact.abs().max() / 10  # the table is for logits of order 10
    assert (ours - theirs).abs().max() <= TOLERANCES[torch.bfloat16] * scale
    assert (ours - exact).abs().mean() <= 1.5 * (theirs - exact).abs().mean()


def test_every_type_of_the_gguf_file_as_the_library_reads_it(real_gguf):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    _, tensors = read_head(real_gguf)
    reader = GGUFReader(str(real_gguf))
    kinds: dict[str, int] = {}
    for theirs in reader.tensors:
        name = theirs.tensor_type.name
        kinds[name] = kinds.get(name, 0) + 1
        if kinds[name] > 2 or theirs.name in ("token_embd.weight", "output.weight"):
            continue
        ours = tensors[theirs.name]
        (part,) = gguf_weights.read_tensors(real_gguf, {ours.name: ours}, torch.float32)
        (values,) = part.values()
        expected = torch.from_numpy(dequantize(theirs.data, theirs.tensor_type).copy())
        assert torch.equal(values, expected.view(values.shape)), theirs.name
    assert kinds == {"Q5_0": 133, "F32": 121, "Q8_0": 13, "Q6_K": 12, "Q4_K": 12}


@torch.no_grad()
def test_the_gguf_file_gives_the_logits_of_transformers(real_gguf, real_checkpoint):
    """Untied in this file: the same dequantised tensors in transformers, untied, too."""
    model, tokenizer = load(real_gguf, device="cpu", dtype="float32")
    assert not model.config.tie_word_embeddings
    assert isinstance(model, Qwen2)
    config = transformers.Qwen2Config(**model.config.to_dict())
    with torch.device("meta"):
        other = transformers.Qwen2ForCausalLM(config)
    other.load_state_dict(model.state_dict(), assign=True)
    other.model.rotary_emb = type(other.model.rotary_emb)(config)
    ids = torch.tensor([tokenizer.encode(SAMPLES[0])])
    assert (model(ids) - other.eval()(ids).logits).abs().max() <= TOLERANCES[torch.float32]
