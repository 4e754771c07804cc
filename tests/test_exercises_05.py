"""Chapter 05's exercises: wrong answers and planted bugs are refused by the right property."""

import pytest
import torch
from planted import failed, printed

from qwen2_book import Qwen2Config, costs
from qwen2_book.exercises import EXERCISES, check
from qwen2_book.exercises.attention_checks import CARD, LENGTH, SEVEN, decode_flops, sequences


def causal(scores):
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1)


def test_the_hints_are_for_answers_people_reach():
    full = CARD // costs.cache_bytes(SEVEN, LENGTH)
    assert set(EXERCISES["05-1"].hints) == {sequences(28), sequences() + 1, full}
    layer = decode_flops() // SEVEN.num_hidden_layers
    with_four = decode_flops() * SEVEN.num_key_value_heads // SEVEN.num_attention_heads
    prompt = costs.attention_flops(Qwen2Config.named("Qwen2-7B"), LENGTH)
    assert set(EXERCISES["05-2"].hints) == {with_four, decode_flops() // 2, layer, prompt}
    for wrong in EXERCISES["05-2"].hints:
        assert EXERCISES["05-2"].hints[wrong] in check("05-2", wrong).message


def no_root(query, key, value):
    return causal(query @ key.T) @ value


def looks_ahead(query, key, value):
    return (query @ key.T / query.shape[-1] ** 0.5).softmax(-1) @ value


def one_softmax(query, key, value):
    return (
        causal((query @ key.T).mean(0) / query.shape[-1] ** 0.5).expand(len(query), -1, -1) @ value
    )


def copies(query, key, value):
    key, value = (each.repeat(len(query), 1, 1) for each in (key, value))
    return causal(query @ key.mT / query.shape[-1] ** 0.5) @ value


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (no_root, "one query head"),
        (looks_ahead, "one query head"),
        (one_softmax, "every head on its own"),
        (copies, "no copies"),
    ],
)
def test_wrong_multi_query_attention_is_refused(answer, fault):
    assert f"“{fault}” fails" in check("05-3", answer).message


def itself(maps):
    return divmod(int(maps.diagonal(0, -2, -1).mean(-1).argmax()), maps.shape[1])


def any_row(maps):
    return divmod(int(maps.diagonal(-1, -2, -1).amax(-1).argmax()), maps.shape[1])


def two_back(maps):
    return divmod(int(maps.diagonal(-2, -2, -1).mean(-1).argmax()), maps.shape[1])


@pytest.mark.parametrize("answer", [itself, any_row, two_back])
def test_another_head_is_no_previous_token_head(answer):
    assert "fails" in check("05-4", answer).message


def interleaved(weight, heads, groups):
    return weight.unflatten(0, (heads // groups, groups, -1)).mean(0).flatten(0, 1)


def summed(weight, heads, groups):
    return weight.unflatten(0, (groups, heads // groups, -1)).sum(1).flatten(0, 1)


def weights_only(weight, heads, groups):
    rows, columns = weight.shape
    return weight.view(groups, heads // groups, rows // heads, columns).mean(1).flatten(0, 1)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [(interleaved, "consecutive heads share"), (summed, "two heads become one")],
)
def test_wrong_pools_are_refused(answer, fault):
    assert f"“{fault}” fails" in check("05-5", answer).message


def test_a_pool_without_biases_is_told_so():
    assert "stopped at “a bias too”" in check("05-5", weights_only).message


BIAS = ("(x @ p.weight.T)", "p(x)")
ORDER = (
    "key.repeat(1, copies, 1, 1), value.repeat(1, copies, 1, 1)",
    "key.repeat_interleave(copies, 1), value.repeat_interleave(copies, 1)",
)
FLOAT = ("query @ key.mT", "query.float() @ key.float().mT")
CAST = (".softmax(-1)\n", ".softmax(-1).to(x.dtype)\n")
FIRST = ("query @ key.mT / head_dim**0.5", "(query / head_dim**0.5) @ key.mT")


def port(*repairs):
    """The function as the chapter prints it, with repairs."""
    return printed("05_grouped_query_attention", "port", *repairs)


@pytest.mark.parametrize(
    ("repairs", "fault"),
    [
        ((ORDER, FLOAT, CAST), "the biases arrive"),
        ((BIAS, FLOAT, CAST), "consecutive query heads share a key head"),
        ((BIAS, ORDER), "large scores in float16"),
    ],
)
def test_each_planted_bug_fails_its_own_property_and_no_other(repairs, fault):
    with torch.no_grad():
        found = failed("05-6", port(*repairs))
    assert fault in found
    others = {"large scores in float16"} if fault == "the biases arrive" else set()
    assert set(found) - others == {fault}  # without its biases nothing is large


@pytest.mark.parametrize("repairs", [(BIAS, ORDER, FLOAT, CAST), (BIAS, ORDER, FIRST)])
def test_both_repairs_of_the_overflow_are_right(repairs):
    assert check("05-6", port(*repairs)).right


def test_the_printed_port_has_all_three_bugs():
    assert "“the biases arrive” fails" in check("05-6", port()).message
    assert "“consecutive query heads" in check("05-6", port(BIAS)).message
    assert "“large scores in float16” fails" in check("05-6", port(BIAS, ORDER)).message
