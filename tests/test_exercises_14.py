"""Chapter 14's exercises: planted bugs and usual wrong answers, each named by what fails."""

import itertools

import pytest
import torch
from planted import failed, printed

from qwen2_book.exercises import check

COPIES = ("key.repeat(groups, 1, 1)", "key.repeat_interleave(groups, 0)")
DIAGONAL = ("tril(1)", "tril()")
SHARE = ("masked_fill(unseen, 0)", "masked_fill(unseen, -torch.inf)")
NAMES = {
    DIAGONAL: "no query looks at the next key",
    SHARE: "what is hidden gets nothing",
    COPIES: "each head with its own key head",
}


@pytest.mark.parametrize("count", range(3))
def test_each_planted_bug_fails_its_property(count):
    for left in itertools.combinations(NAMES, 3 - count):
        repairs = [repair for repair in NAMES if repair not in left]
        found = failed("14-3", printed("14_seeing_attention", "weights", *repairs))
        assert found == [NAMES[bug] for bug in NAMES if bug in left]


def test_all_repairs_together_are_right():
    assert check("14-3", printed("14_seeing_attention", "weights", *NAMES)).right


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (28 * 28 * 32_768**2 * 2 / 1e9, "half"),
        (28 * 4 * 32_768**2 * 4 / 1e9, "query heads"),
        (28 * 32_768**2 * 4 / 1e9, "one layer"),
        (32_768**2 * 4 / 1e9, "one head"),
        (28 * 28 * 32_768**2 * 4 / 2**30, "GiB"),
        (28 * 28 * 32_768**2 / 1e9, "four bytes"),
        (7, "Not yet"),
    ],
)
def test_wrong_counts_meet_their_hint(wrong, hint):
    verdict = check("14-1", wrong)
    assert not verdict.right and hint in verdict.message
    assert check("14-1", "3,367 GB").right and check("14-1", 28 * 28 * 4.295).right


def test_wrong_windows():
    def inside(attention, window, first, reach=0):
        ahead = torch.arange(len(attention))[:, None] - torch.arange(len(attention))
        return (attention * (ahead < window + reach)).sum(-1)

    def twice(attention, window, first):
        kept = inside(attention, window, first)
        return (kept + attention[:, 0] * first).mean()

    def off_by_one(attention, window, first):
        return inside(attention, window, first, 1).mean()

    assert failed("14-2", twice) == ["with the first token", "a window longer than the text"]
    assert "a window alone" in failed("14-2", off_by_one)
    assert failed("14-2", lambda *case: inside(*case).mean()) == ["with the first token"]


def test_wrong_silences():
    def in_place(mixed, head, dim):
        part = mixed[:, head * dim : head * dim + dim]
        part[:] = part.mean(0)
        return mixed

    def zero(mixed, head, dim):
        mixed = mixed.clone()
        mixed[:, head * dim : head * dim + dim] = 0
        return mixed

    def one_mean(mixed, head, dim):
        mixed = mixed.clone()
        mixed[:, head * dim : head * dim + dim] = mixed[:, head * dim : head * dim + dim].mean()
        return mixed

    assert failed("14-4", in_place) == ["the input stays"]
    assert failed("14-4", zero) == failed("14-4", one_mean) == ["its mean at every position"]
    assert "the other heads" in failed("14-4", lambda mixed, head, dim: mixed.mean(0).expand(6, 12))


def test_wrong_windows_of_layers():
    def by(reduce, over=lambda kept, share: kept >= share):
        def answer(kept, windows, share):
            good = over(reduce(kept), share)
            return [windows[int(row.float().argmax())] for row in good]

        return answer

    assert failed("14-5", by(lambda kept: kept.amin(1))) == []
    assert "every head is served" in failed("14-5", by(lambda kept: kept.mean(1)))
    assert failed("14-5", by(lambda kept: kept.amin(1), lambda kept, share: kept > share)) == [
        "a share that is just reached"
    ]
    assert "no window is longer than needed" in failed(
        "14-5", lambda kept, windows, share: [windows[-1]] * len(kept)
    )


def test_wrong_rollouts():
    def product(steps, turn=False):
        shares = torch.eye(steps.shape[-1])
        for step in steps:
            shares = shares @ step if turn else step @ shares
        return shares

    def halves(attention):
        return 0.5 * attention.mean(1) + 0.5 * torch.eye(attention.shape[-1])

    assert failed("14-6", lambda attention: product(halves(attention))) == []
    assert failed("14-6", lambda attention: product(halves(attention), turn=True)) == [
        "the order of the layers"
    ]
    assert "one layer" in failed("14-6", lambda attention: product(attention.mean(1)))
    assert "rows that sum to one" in failed(
        "14-6", lambda attention: product(attention.mean(1) + torch.eye(attention.shape[-1]))
    )
