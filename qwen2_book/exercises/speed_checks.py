"""What right answers to the exercises of chapter 15 do: each check raises AssertionError if not."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qwen2_book import costs
from qwen2_book.config import Qwen2Config

BANDWIDTH = 100e9  # bytes a second of exercise 15-1


def laptop_tokens() -> float:
    """Tokens a second at most: every matrix of Qwen2-7B once a token, in bfloat16."""
    counts = costs.parameters(Qwen2Config.named("Qwen2-7B"))
    return BANDWIDTH / (2 * (counts["total"] - counts["embedding"]))


# 15-2: enough_rows(speed, bandwidth, size)


def two_operations(answer: Callable) -> None:
    """A weight takes a multiplication and an addition in each row."""
    assert int(answer(8e9, 1e9, 4)) == 16
    assert int(answer(80e9, 20e9, 2)) == 4


def rounded_up(answer: Callable) -> None:
    """The smallest whole number at which arithmetic takes as long as reading, or longer."""
    for speed, bandwidth, size in ((10e9, 4e9, 1), (77e9, 15e9, 4), (60e9, 16e9, 0.625)):
        rows = answer(speed, bandwidth, size)
        assert rows == int(rows)
        assert 2 * rows / speed >= size / bandwidth > 2 * (rows - 1) / speed


def one_row_at_least(answer: Callable) -> None:
    """Where arithmetic is so slow that one row is enough, it is one."""
    assert int(answer(1e9, 50e9, 1)) == 1


# 15-3: stored(weight, group), with three planted bugs


def half_a_step(answer: Callable) -> None:
    """One group a row, whose largest weight is negative."""
    weight = torch.rand(5, 8, generator=torch.Generator().manual_seed(2)) - 0.3
    weight[:, 2] = -1.5
    found = answer(weight, 8)
    assert isinstance(found, Tensor) and found.shape == weight.shape
    assert (found - weight).abs().max() <= 0.51 * 1.5 / 127


def largest_keeps_its_sign(answer: Callable) -> None:
    """The largest weight of a group is positive; one group a row."""
    weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    weight[:, 3] = weight.abs().amax(1) + 0.5
    found = answer(weight, 8)
    assert (found - weight).abs().max() <= weight.max() / 127


def own_scale(answer: Callable) -> None:
    """Groups of very different sizes, each with a negative weight as its largest."""
    weight = torch.rand(3, 12, generator=torch.Generator().manual_seed(1))
    weight = weight * torch.tensor([0.01, 0.1, 1.0]).repeat_interleave(4)
    weight[:, ::4] = -1.5 * torch.tensor([0.01, 0.1, 1.0])
    step = weight.unflatten(1, (3, 4)).abs().amax(2) / 127
    off = (answer(weight, 4) - weight).unflatten(1, (3, 4)).abs().amax(2)
    assert (off <= step).all()


# 15-4: times_as_fast(before, after)


def warm_up_is_left_out(answer: Callable) -> None:
    """The first round is there to warm up."""
    assert abs(float(answer([900.0, 4.0, 4.0, 4.0], [1.0, 2.0, 2.0, 2.0])) - 2) < 1e-9


def within_a_round(answer: Callable) -> None:
    """The machine is slower in some rounds; both are then, and only their ratio counts."""
    slow = [1.0, 2.0, 9.0, 1.0, 5.0, 3.0]
    ratios = [7.0, 2.0, 1.0, 3.0, 2.0, 2.5]
    before = [s * r for s, r in zip(slow, ratios, strict=True)]
    assert abs(float(answer(before, slow)) - 2) < 1e-9


def one_bad_round(answer: Callable) -> None:
    """A single round in which something else ran does not matter."""
    before, after = [3.0, 3.0, 3.0, 3.0, 300.0, 3.0], [2.0] * 6
    assert abs(float(answer(before, after)) - 1.5) < 1e-9


# 15-5: passes(wanted, slots)


def _passes(wanted: Sequence[int], slots: int) -> int:
    """By hand: fill free slots, take a pass, take out what is done."""
    waiting = [count - 1 for count in wanted if count > 1]
    running: list[int] = []
    passes = 0
    while waiting or running:
        while waiting and len(running) < slots:
            running.append(waiting.pop(0))
        passes += 1
        running = [left - 1 for left in running if left > 1]
    return passes


def one_slot(answer: Callable) -> None:
    """One after the other: each needs as many passes as it has tokens, less one."""
    for wanted in ([5, 3, 2], [4], [2, 9]):
        assert int(answer(list(wanted), 1)) == sum(wanted) - len(wanted)


def slots_for_all(answer: Callable) -> None:
    """With a slot for each, the longest decides."""
    for wanted in ([5, 3, 2], [2, 9, 9, 4]):
        assert int(answer(list(wanted), len(wanted) + 1)) == max(wanted) - 1


def filled_again(answer: Callable) -> None:
    """A slot that becomes free is taken before the next pass."""
    for wanted, slots in (([9, 3, 3, 3], 2), ([2, 7, 4, 8, 3, 3, 6], 3), ([6, 2, 2, 2, 2, 2], 2)):
        assert int(answer(list(wanted), slots)) == _passes(wanted, slots)


def single_tokens(answer: Callable) -> None:
    """A request for one token has it from its prompt."""
    for wanted, slots in (([1, 1, 4, 1], 2), ([1], 1), ([3, 1, 1, 3, 1, 5], 2)):
        assert int(answer(list(wanted), slots)) == _passes(wanted, slots)


# 15-6: best_guesses(alpha, seconds)


def rows_are_free(answer: Callable) -> None:
    """Where more rows cost nothing, guess as many as there may be."""
    assert int(answer(0.5, [1.0] * 6)) == 5


def rows_are_dear(answer: Callable) -> None:
    """Where every row costs a whole pass, do not guess."""
    assert int(answer(0.5, [1.0, 2.0, 3.0, 4.0])) == 0
    assert int(answer(0.9, [1.0, 2.0, 3.0, 4.0])) == 0


def most_tokens_a_second(answer: Callable) -> None:
    """Between: the expected tokens of a pass, divided by its seconds, are the most."""
    for alpha in (0.2, 0.6, 0.85):
        for slope in (0.05, 0.2, 0.4):
            seconds = [1 + slope * k for k in range(9)]
            rates = [sum(alpha**n for n in range(k + 1)) / seconds[k] for k in range(9)]
            assert int(answer(alpha, seconds)) == rates.index(max(rates))


def never_refused(answer: Callable) -> None:
    """With alpha 1 every guess is kept: a pass makes one token more than it guesses."""
    assert int(answer(1.0, [1.0, 1.5, 1.9, 3.9])) == 2
