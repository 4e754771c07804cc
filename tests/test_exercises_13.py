"""Chapter 13's exercises: planted bugs and usual wrong answers, each named by what fails."""

from dataclasses import replace

import pytest
from planted import failed, printed

from qwen2_book import Qwen2Config, costs
from qwen2_book.config import RopeScaling
from qwen2_book.exercises import check
from qwen2_book.rope import inverse_frequencies

LENGTH = ('settings["max_position_embeddings"]', 'settings["original_max_position_embeddings"]')
ONCE = ("scale**2", "scale")
OWN = ("scale = 0.1 *", 'scale = settings.get("attention_factor") or 0.1 *')
NAMES = {LENGTH: "the trained length", ONCE: "the factor once", OWN: "the checkpoint's own factor"}


@pytest.mark.parametrize("left", NAMES, ids=NAMES.values())
def test_each_planted_bug_fails_its_property(left):
    repairs = [repair for repair in NAMES if repair != left]
    assert NAMES[left] in failed("13-6", printed("13_long_context", "yarn_of", *repairs))
    if left != ONCE:
        assert "the factor once" not in failed(
            "13-6", printed("13_long_context", "yarn_of", *repairs)
        )


def test_all_repairs_together_are_right():
    assert failed("13-6", printed("13_long_context", "yarn_of", *NAMES)) == []
    assert check("13-6", printed("13_long_context", "yarn_of", *NAMES)).right


@pytest.mark.parametrize(
    ("theta", "length", "dim", "hint"),
    [
        (1e6, 32_768, 128, "released"),
        (1e6, 4_096, 128, "still 1,000,000"),
        (1e4, 4_096, 64, "64 dim"),
    ],
)
def test_wrong_settings_meet_their_hint(theta, length, dim, hint):
    config = replace(Qwen2Config.named("Qwen2-7B"), rope_theta=theta, head_dim=dim)
    before, _ = inverse_frequencies(config)
    after, _ = inverse_frequencies(replace(config, rope_scaling=RopeScaling(8.0, length)))
    assert hint in check("13-1", int((before == after).sum())).message


@pytest.mark.parametrize(("wrong", "hint"), [(20, "counted from 0"), (36, "32,768"), (18, "whole")])
def test_wrong_counts_meet_a_hint(wrong, hint):
    assert hint in check("13-1", wrong).message
    assert not check("13-1", wrong).right
    assert check("13-1", "21 pairs").right


def test_the_usual_wrong_functions():
    assert failed("13-2", lambda base, factor, dim, pair: base * factor ** (dim / (dim - 2))) == [
        "the chosen pair is slowed by the factor"
    ]
    assert failed("13-3", lambda i, j, chunk, local: [j]) == [
        "a key of the query's own piece",
        "a key of the piece before",
        "a key of an earlier piece",
    ]
    assert failed("13-5", lambda config, memory: memory // costs.cache_bytes(config, 1)) == [
        "the weights stay",
        "never less than none",
    ]
    assert failed(
        "13-5",
        lambda config, memory: (
            (memory - costs.weight_bytes(config)) // (costs.cache_bytes(config, 1) // 2)
        ),
    ) == ["the bytes of a token", "the weights stay", "never less than none"]


def test_the_usual_wrong_merges():
    def naive(first, second):
        (out, total), (other, more) = first, second
        both = total.exp() + more.exp()
        mixed = (total.exp()[:, None] * out + more.exp()[:, None] * other) / both[:, None]
        return mixed, both.log()

    def unlogged(first, second):
        out, _ = naive(first, second)
        return out, first[1].exp() + second[1].exp()

    assert failed("13-4", naive) == ["large scores"]
    assert failed("13-4", unlogged)[0] == "the pair can be merged again"
    assert "equal to one softmax" in failed(
        "13-4", lambda first, second: ((first[0] + second[0]) / 2, first[1])
    )


def test_a_distance_that_forgets_the_clamp_fails_where_it_shows():
    def unclamped(i, j, chunk, local):
        piece = chunk - local

        def far(key):
            back = min(i // piece - key // piece, 2)
            return (chunk if back == 2 else i % piece + back * piece) - key % piece

        return [key for key in range(i + 1) if far(key) == far(j)]

    assert "a key of the piece before" in failed("13-3", unclamped)
