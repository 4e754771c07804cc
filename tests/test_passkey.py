"""The pass-key test: the prompt is what it says, and the count is of digits alone."""

import pytest
import torch

from qwen2_book import load
from qwen2_book.passkey import FILLER, digits_found, hidden_key


@pytest.fixture(scope="module")
def tiny():
    return load(dtype="float32", device="cpu")


@pytest.mark.parametrize("length", [200, 777])
@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_the_prompt_is_what_it_says(tiny, length, depth):
    _, tokenizer = tiny
    ids, digits = hidden_key(tokenizer, length, depth, seed=3)
    assert length - 40 < len(ids) <= length
    text, key = tokenizer.decode(ids), tokenizer.decode(ids[-digits:])
    assert len(key) == 5 and key.isdigit() and text.endswith(f"The pass key is {key}")
    assert text.count(key) == 3
    needle = f" The pass key is {key}. Remember it: {key} is the pass key."
    before, after = text.split(needle)
    filler, question = after.split("\nWhat is")
    assert abs(len(before) / len(before + filler) - depth) < 0.15
    assert question == f" the pass key? The pass key is {key}"
    for part in (before, filler):  # only whole sentences
        for sentence in FILLER:
            part = part.replace(f" {sentence}", "")
        assert part == ""
    assert ids != hidden_key(tokenizer, length, depth, seed=4)[0]


def test_only_the_place_of_the_key_depends_on_depth(tiny):
    _, tokenizer = tiny
    texts = [
        tokenizer.decode(hidden_key(tokenizer, 300, d, seed=3)[0]) for d in (0.0, 0.5, 1.0, None)
    ]
    key = texts[0][-5:]
    needle = f" The pass key is {key}. Remember it: {key} is the pass key."
    assert all(text.count(needle) == 1 for text in texts[:3])
    assert {text.replace(needle, "") for text in texts[:3]} == {texts[3]}


def test_digits_are_counted(tiny):
    """A model whose head points at one token finds that digit wherever it stands in the key."""
    model, tokenizer = tiny
    ids, digits = hidden_key(tokenizer, 150, 0.3, seed=1)
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0, -digits - 1 : -1].argmax(-1).tolist()
    right = sum(a == b for a, b in zip(expected, ids[-digits:], strict=True))
    assert digits_found(model, ids, digits) == right
    assert digits_found(model, ids[:-digits] + expected[:1] + ids[-digits + 1 :], digits) >= 1


@pytest.mark.parametrize(("length", "depth"), [(20, 0.5), (300, 1.5), (300, -0.1)])
def test_a_prompt_without_meaning_is_refused(tiny, length, depth):
    with pytest.raises(ValueError, match="a depth from 0"):
        hidden_key(tiny[1], length, depth, seed=0)
