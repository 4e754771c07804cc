"""Chapter 17's script: its masks, its loss of means, its leak; masks of transformers and TRL."""

from pathlib import Path

import pytest
import torch
import tuning_runs as mini
from layouts import DENSE, replace

from qwen2_book import Qwen2, load
from qwen2_book.training.data import PADDING, unpacked
from qwen2_book.training.loss import language_loss
from qwen2_book.training.sft import conversation_sample
from qwen2_book.world.talk import conversation


@pytest.fixture(scope="module")
def tokenizer():
    return load()[1]


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    rows = -(-len(tokenizer) // 64) * 64
    shape = {"num_hidden_layers": 2, "tie_word_embeddings": True, "initializer_range": 0.1}
    return Qwen2(replace(DENSE, vocab_size=rows, max_position_embeddings=1024, **shape))


def text_of(tokenizer, sample):
    return tokenizer.decode([t for t, own in zip(*sample, strict=True) if own])


TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "A user, hello!"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "Bye."},
    {"role": "assistant", "content": "Goodbye!"},
]


def test_each_mask_says_what_it_says(tokenizer):
    right = conversation_sample(tokenizer, TALK)
    found = {m: mini.masked(tokenizer, right, m) for m in (*mini.MASKS, "questions")}
    assert found["answers"] == found["means"] == found["leak"] == right
    assert all(found["everything"][1])
    assert text_of(tokenizer, found["newline"]) == "Hi!<|im_end|>\nGoodbye!<|im_end|>\n"
    assert text_of(tokenizer, found["no end"]) == "Hi!Goodbye!"
    late = text_of(tokenizer, found["one late"])
    assert late.endswith("<|im_end|>\n") and not late.startswith("Hi!")
    assert text_of(tokenizer, found["questions"]) == "A user, hello!Bye."


def test_the_mean_of_means_is_what_averaged_micro_batches_give(tokenizer, model):
    samples = [conversation_sample(tokenizer, conversation(3, k)) for k in range(5)]
    batch = unpacked(samples)
    singles = [unpacked([sample]) for sample in samples]
    with torch.no_grad():
        means = [float(language_loss(model, each)) / each.weight for each in singles]
        ours = float(mini.by_conversation(model, batch)) / batch.weight
        token_mean = float(language_loss(model, batch)) / batch.weight
    assert ours == pytest.approx(sum(means) / 5, rel=1e-5)
    assert abs(ours - token_mean) > 1e-3


def test_a_leaking_batch_differs_in_the_numbers_of_its_documents_alone(tokenizer):
    right, leak = (mini.source(tokenizer, 4, mask).batch(0) for mask in ("answers", "leak"))
    assert torch.equal(right.token_ids, leak.token_ids) and torch.equal(right.targets, leak.targets)
    assert int(right.documents.max()) > 0 and set(leak.documents.flatten().tolist()) == {0, PADDING}


def test_what_is_wanted_is_wanted_once():
    found = [str(what) for what in mini.wanted(["masks", "rates", "lora"])]
    assert len(found) == len(set(found)) == 1 + 5 * (len(mini.MASKS) + len(mini.RATES) - 1 + 4)


def test_masks_of_the_template_without_marks_and_with_trls(tokenizer, tmp_path):
    """transformers: all zero without marks; with TRL's, both line breaks more than ours."""
    transformers = pytest.importorskip("transformers")
    trl = pytest.importorskip("trl")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids, learned = conversation_sample(tokenizer, TALK)
    options = {"return_dict": True, "return_assistant_tokens_mask": True}
    plain = theirs.apply_chat_template(TALK, **options)
    assert list(plain["input_ids"]) == list(ids) and sum(plain["assistant_masks"]) == 0
    file = Path(trl.__file__).parent / "chat_templates" / "qwen2_5_training.jinja"
    if not file.exists():
        pytest.skip("this TRL has no training template of the family")
    marked = theirs.apply_chat_template(TALK, chat_template=file.read_text("utf-8"), **options)
    assert list(marked["input_ids"]) == list(ids)
    edges = zip([False, *learned[:-1]], learned, [*learned[1:], False], strict=True)
    both = [before or own or after for before, own, after in edges]
    assert [bool(mark) for mark in marked["assistant_masks"]] == both
