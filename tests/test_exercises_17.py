"""Chapter 17's exercises: planted bugs and usual wrong answers, each named by what fails."""

import itertools

import pytest
import torch
from planted import failed, printed

from qwen2_book.exercises import check

CHAPTER = "17_supervised_finetuning"
MARK = ("wanted[:-1]", "wanted[1:]")
SHIFT = ("targets[row, : len(follows) - 1] = follows[1:]", "targets[row, : len(follows)] = follows")
PAD = ("    targets[targets == pad] = -100\n", "")
NAMES = {
    SHIFT: "the token that follows",
    MARK: "whole answers, nothing else",
    PAD: "the end of each answer",
}


@pytest.mark.parametrize("bug", NAMES)
def test_each_planted_bug_fails_its_property(bug):
    repairs = [repair for repair in NAMES if repair != bug]
    assert NAMES[bug] in failed("17-3", printed(CHAPTER, "collate", *repairs))


@pytest.mark.parametrize("count", range(3))
def test_no_part_of_the_repairs_is_enough(count):
    for repairs in itertools.combinations(NAMES, count):
        assert not check("17-3", printed(CHAPTER, "collate", *repairs)).right


def test_all_repairs_together_are_right():
    assert check("17-3", printed(CHAPTER, "collate", *NAMES)).right


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (1.75, "mean of the two means"),
        (15, "sum over all tokens"),
        (7.5, "number of answers"),
        (3.5, "sum of the means"),
        (2, "Not yet"),
    ],
)
def test_wrong_means_meet_their_hint(wrong, hint):
    verdict = check("17-1", wrong)
    assert not verdict.right and hint in verdict.message
    assert check("17-1", "0.75 nats").right and check("17-1", torch.tensor(0.75)).right


def marks(ids, start, end, assistant, header=3, last=1, any_role=False):
    """Which tokens are learned, with room for the usual mistakes."""
    found = [False] * len(ids)
    for at, token in enumerate(ids[1:], 1):
        if token == assistant and (any_role or ids[at - 1] == start):
            stop = next((k for k in range(at, len(ids)) if ids[k] == end), len(ids))
            for k in range(at - 1 + header, min(stop + last, len(ids))):
                found[k] = True
    return found


def test_wrong_masks():
    assert failed("17-2", marks) == []
    every = ["one answer", "two answers", "the word in a text", "an answer that is cut off"]
    assert failed("17-2", lambda *case: marks(*case, header=0)) == every
    assert failed("17-2", lambda *case: marks(*case, last=0)) == every[:3]
    assert failed("17-2", lambda *case: marks(*case, last=2)) == every[:3]
    assert failed("17-2", lambda *case: marks(*case, any_role=True)) == ["the word in a text"]


def test_wrong_rows():
    def in_order(lengths, room):
        rows, left = [[]], room
        for number, length in enumerate(lengths):
            if length > left:
                rows.append([])
                left = room
            rows[-1].append(number)
            left -= length
        return rows

    assert failed("17-4", in_order) == ["few rows"]
    assert failed("17-4", lambda lengths, room: [list(range(len(lengths)))]) == ["no row too long"]
    assert "each once" in failed("17-4", lambda lengths, room: [[0]])


def test_wrong_masks_of_packed_rows():
    def causal(documents):
        return torch.ones(len(documents), len(documents)).tril() == 1

    def both_ways(documents):
        return documents[:, None] == documents[None]

    def no_padding(documents):
        return both_ways(documents) & causal(documents) & (documents >= 0)

    assert failed("17-5", causal) == ["its own text only", "all of it up to itself"]
    assert failed("17-5", both_ways) == ["all of it up to itself"]
    assert failed("17-5", no_padding) == ["no empty row"]


def test_wrong_factors():
    def without_values(delta, rank):
        left, _, right = torch.linalg.svd(delta, full_matrices=False)
        return left[:, :rank], right[:rank]

    def smallest(delta, rank):
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        return left[:, -rank:] * values[-rank:], right[-rank:]

    def both_square(delta, rank):
        left, values, right = torch.linalg.svd(delta, full_matrices=False)
        return left * values, right

    assert failed("17-6", without_values) == ["whole at full rank", "the best there is"]
    assert failed("17-6", smallest) == ["the best there is"]
    assert "two thin matrices" in failed("17-6", both_square)
