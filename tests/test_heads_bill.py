"""The figure of heads and the cache bill, in Python: the package's numbers."""

from dataclasses import replace

import pytest

from qwen2_book import Qwen2Config, costs
from qwen2_book.widgets import HeadsBill
from qwen2_book.widgets.heads_bill import SIZES, divisors


@pytest.mark.parametrize("size", range(len(SIZES)))
def test_weights_and_cache_are_those_of_the_configuration(size):
    released = Qwen2Config.named(f"Qwen2-{SIZES[size]}")
    kinds = divisors(released.num_attention_heads)
    assert HeadsBill(size=size).kv_heads == released.num_key_value_heads
    for kv, heads in enumerate(kinds):
        config = replace(released, num_key_value_heads=heads)
        figure = HeadsBill(size=size, kv=kv, log_length=13, log_batch=2)
        assert figure.note == ""
        assert figure.weight_bytes() == costs.weight_bytes(config)
        assert figure.cache_bytes() == costs.cache_bytes(config, 2**13, batch=4)


def test_every_query_head_has_one_reader():
    figure = HeadsBill(size=4, kv=3)
    groups = []
    for head in range(figure.kv_heads):
        figure.picked = head
        groups += figure.readers
    assert groups == list(range(64))


def test_the_card_holds_what_it_says():
    assert HeadsBill().fitting() == "fits a card of 24 GiB"
    assert HeadsBill(kv=5).fitting() == "fits a card of 80 GiB"
    assert HeadsBill(size=4).fitting() == "more than a card of 80 GiB"


@pytest.mark.parametrize(("state", "kept"), [({"kv": 99}, 28), ({"size": 0, "kv": 6}, 14)])
def test_more_heads_than_there_are_become_all_of_them(state, kept):
    assert HeadsBill(**state).kv_heads == kept


def test_nonsense_is_moved_and_said():
    figure = HeadsBill(size="large", picked=-4)
    assert (figure.size, figure.picked) == (2, 0)
    assert "size large is outside 0 to 4" in figure.note
    assert "weights" not in figure.note


def test_the_description_says_what_is_lit():
    said = HeadsBill(picked=3).description()
    assert "query heads 21 to 27" in said
    assert "at 32,768 tokens it is 1.75 GiB" in said
