"""The loss-mask figure in Python: its choice is the package's, its means are over that choice."""

import math

import pytest

from qwen2_book import Tokenizer
from qwen2_book.training.sft import conversation_sample
from qwen2_book.widgets import LossMask
from qwen2_book.widgets.loss_mask import KINDS, ROLES, stored


def figures():
    return [LossMask(preset=preset) for preset in range(5)]


def test_stored_choice_follows_from_the_control_tokens():
    """An independent reading: between the header of an assistant and its end, the end included."""
    for figure in figures():
        tokens = figure.tokens
        for at, (_, text, role, kind, learned, _) in enumerate(tokens):
            end = text == "<|im_end|>"
            own = ROLES[role] == "assistant" and (KINDS[kind] == "content" or end)
            assert bool(learned) == own, (at, text)


def test_stored_tokens_are_the_real_ones(real_checkpoint):
    from loss_mask_data import PRESETS, SYSTEM

    tokenizer = Tokenizer.from_file(real_checkpoint)
    for preset, messages in zip(stored()["presets"], PRESETS.values(), strict=True):
        ids, learned = conversation_sample(tokenizer, [SYSTEM, *messages])
        assert [token[0] for token in preset["tokens"]] == list(ids)
        assert [bool(token[4]) for token in preset["tokens"]] == learned


def test_switches_change_what_they_say():
    figure = LossMask(preset=1)
    right = figure.learned()
    assert right == figure.answers() and figure.ends() == (2, 2)
    figure.newline = 1
    assert sum(figure.learned()) == sum(right) + 2
    figure.newline, figure.late = 0, 1
    assert figure.learned() == [False, *right[:-1]] and figure.ends() == (2, 2)
    figure.late, figure.everything = 0, 1
    assert sum(figure.learned()) == len(right) - 1  # all but the first token
    figure.everything, figure.cut = 0, 30
    assert figure.ends() == (1, 2) and not any(figure.learned()[30:])


def test_means_are_over_the_learned_tokens():
    figure = LossMask(preset=0)
    losses = [token[5] / 1000 for token in figure.tokens if token[4]]
    assert figure.mean(figure.learned()) == pytest.approx(sum(losses) / len(losses))
    figure.cut = 16
    assert math.isnan(figure.mean(figure.learned()))


def test_an_attack_is_the_users_words():
    tokens = LossMask(preset=4).tokens
    assert sum(token[1] == "<|im_end|>" for token in tokens) == 3  # system, user, assistant
    assert [token[1] for token in tokens if token[4]] == ["No", ".", "<|im_end|>"]


def test_nonsense_is_moved_and_said():
    figure = LossMask(cut="all", preset=9)
    assert (figure.cut, figure.preset) == (80, 4)
    assert "cut all is outside 16 to 80" in figure.note


def test_the_description_says_what_is_seen():
    figure = LossMask()
    assert f"{sum(figure.learned())} of them" in figure.description()
    assert "2 of 2 answers" in figure.description()
