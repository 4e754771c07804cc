"""Exercises of chapter 01: known wrong answers are refused, and the named property says why."""

import pytest
import torch

from qwen2_book.config import Qwen2Config
from qwen2_book.costs import parameters
from qwen2_book.exercises import EXERCISES, check
from qwen2_book.exercises.meet_checks import SMALL


def test_the_hints_of_01_1_come_from_the_mistakes_that_they_name():
    total, table, inner = parameters(SMALL)["total"], 32_000 * 512, 512 * 1536
    reached = {
        total + table,  # a head of its own
        total + 8 * 2 * 6 * 64 * 513,  # a key and a value head for every query head
        total - 8 * inner,  # two feed-forward matrices
        total - table,
    }
    assert reached == set(EXERCISES["01-1"].hints)
    assert check("01-1", "about 40.5 million").right is False  # a number, in full
    assert check("01-1", 40_000_000).right


def test_the_share_may_be_rounded():
    assert check("01-2", "24.8 %").right
    assert check("01-2", 25).right
    assert not check("01-2", 0.248).right


def buggy_lens(states, weight, head, eps=1e-6):
    """The planted bug as the chapter prints it."""
    size = (states[-1].pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return (states / size * weight @ head.T).softmax(-1)


def centred_lens(states, weight, head, eps=1e-6):
    states = states - states.mean(-1, keepdim=True)
    return (states / (states.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight @ head.T).softmax(
        -1
    )


def mean_over_all(states, weight, head, eps=1e-6):
    size = (states.pow(2).mean() + eps).sqrt()
    return (states / size * weight @ head.T).softmax(-1)


def always_tied(config):
    hidden, d = config.hidden_size, config.head_dim
    q, k = config.num_attention_heads * d, config.num_key_value_heads * d
    block = (q + 2 * k) * (hidden + 1) + hidden * q + 3 * hidden * config.intermediate_size
    block += 2 * hidden
    return config.num_hidden_layers * block + hidden + config.vocab_size * hidden


def no_bias(config):
    k = config.num_key_value_heads * config.head_dim
    biases = config.num_hidden_layers * (config.hidden_size + 2 * k)
    return parameters(config)["total"] - biases


def first_visit(firsts):
    return list(firsts).index(firsts[-1])


def from_one(firsts):
    done = len(firsts) - 1
    while done > 0 and firsts[done - 1] == firsts[-1]:
        done -= 1
    return done + 1


def never_ends(firsts):
    done = len(firsts)
    while firsts[done - 1] == firsts[-1]:
        done -= 1
    return done


@pytest.mark.parametrize(
    ("name", "wrong", "fails"),
    [
        ("01-3", lambda z, t: int((z > z[t]).sum()), "the likeliest is first"),
        ("01-3", lambda z, t: 1 if int(z.argmax()) == t else 2, "the others in order"),
        ("01-3", lambda z, t: int((z >= z[t]).sum()), "equal scores share a place"),
        ("01-4", from_one, "it appears and stays"),
        ("01-4", first_visit, "it came, left and came back"),
        ("01-4", never_ends, "it was there from the start"),
        ("01-5", buggy_lens, "every state by its own length"),
        ("01-5", centred_lens, "the last state is the model's answer"),
        ("01-5", mean_over_all, "the last state is the model's answer"),
        ("01-6", no_bias, "a tied model"),
        ("01-6", always_tied, "an untied model"),
    ],
)
def test_wrong_code_is_refused_with_its_property(name, wrong, fails):
    verdict = check(name, wrong)
    assert not verdict.right
    assert f"“{fails}” fails" in verdict.message or f"stopped at “{fails}”" in verdict.message


def test_the_chapters_bug_keeps_the_order():
    """As the solution says: the first token is right, the probabilities are not."""
    _ = torch.manual_seed(3)
    states = torch.randn(3, 2, 8) * torch.tensor([0.1, 1.0, 20.0])[:, None, None]
    weight, head = torch.rand(8) + 0.5, torch.randn(11, 8)
    size = (states.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    right = (states / size * weight @ head.T).softmax(-1)
    wrong = buggy_lens(states, weight, head)
    assert torch.equal(right.argmax(-1), wrong.argmax(-1))
    assert right[0].max() > 3 * wrong[0].max()


def test_the_solution_counts_every_dense_model():
    for name in Qwen2Config.names():
        config = Qwen2Config.named(name)
        if not config.num_experts and config.tie_word_embeddings:
            assert always_tied(config) == parameters(config)["total"]
