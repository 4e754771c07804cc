"""What right answers to the exercises of chapter 17 do: each check raises AssertionError if not."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

IGNORE = -100
START, END, USER, ASSISTANT, LINE = 90, 91, 1, 2, 3  # ids of a made-up vocabulary


def token_mean() -> float:
    """Answers of 2 and 18 tokens, with mean losses of 3.0 and 0.5 nats."""
    return (2 * 3.0 + 18 * 0.5) / 20


# 17-2: learned(ids, start, end, assistant)


def _turn(role: int, *text: int) -> list[int]:
    return [START, role, LINE, *text, END, LINE]


def _mask(*turns: tuple[int, Sequence[int]]) -> tuple[list[int], list[bool]]:
    """A conversation, and which tokens are an answer or its end."""
    ids: list[int] = []
    marks: list[bool] = []
    for role, text in turns:
        ids += _turn(role, *text)
        own = role == ASSISTANT
        marks += [False] * 3 + [own] * (len(text) + 1) + [False]
    return ids, marks


def _learned(*turns: tuple[int, Sequence[int]]) -> Callable:
    def holds(answer: Callable) -> None:
        ids, marks = _mask(*turns)
        found = [bool(mark) for mark in answer(list(ids), START, END, ASSISTANT)]
        assert found == marks

    return holds


one_answer = _learned((USER, [10, 11]), (ASSISTANT, [12, 13, 14]))
two_answers = _learned((USER, [10]), (ASSISTANT, [12]), (USER, [15, 16]), (ASSISTANT, [17, 18]))
role_in_text = _learned((USER, [10, ASSISTANT, LINE, 11]), (ASSISTANT, [USER, ASSISTANT, 12]))


def cut_off(answer: Callable) -> None:
    """A conversation that was cut inside its answer: what is there of the answer is learned."""
    ids, marks = _mask((USER, [10]), (ASSISTANT, [12, 13, 14]))
    found = answer(ids[:-3], START, END, ASSISTANT)
    assert [bool(mark) for mark in found] == marks[:-3]


# 17-3: collate(samples, pad), with three planted bugs


def _samples() -> list[tuple[list[int], list[bool]]]:
    return [_mask((USER, [10, 11]), (ASSISTANT, [12])), _mask((USER, [10]), (ASSISTANT, [13, 14]))]


def _collated(answer: Callable, pad: int) -> tuple[Tensor, Tensor, list]:
    samples = [*_samples(), _mask((USER, [20]), (ASSISTANT, [21]))]
    ids, targets = answer([(list(i), list(m)) for i, m in samples], pad)
    assert isinstance(ids, Tensor) and isinstance(targets, Tensor)
    assert ids.shape == targets.shape and len(ids) == 3
    return ids, targets, samples


def _pairs(ids: Tensor, targets: Tensor) -> list[list[tuple[int, int]]]:
    """(position, target) of everything that is learned, row by row."""
    return [
        [(at, int(row[at])) for at in range(len(row)) if int(row[at]) != IGNORE] for row in targets
    ]


def next_token(answer: Callable) -> None:
    """A target is the token that follows, wherever something is learned."""
    ids, targets, samples = _collated(answer, pad=0)
    for found, (tokens, _) in zip(_pairs(ids, targets), samples, strict=True):
        assert found
        assert all(at + 1 < len(tokens) and tokens[at + 1] == target for at, target in found)


def whole_answer(answer: Callable) -> None:
    """Every token of an answer is learned and nothing else; the mark belongs to the target."""
    ids, targets, samples = _collated(answer, pad=0)
    for found, (tokens, learned) in zip(_pairs(ids, targets), samples, strict=True):
        wanted = [t for t, own in zip(tokens, learned, strict=True) if own and t != END]
        assert [target for _, target in found if target != END] == wanted


def end_is_learned(answer: Callable) -> None:
    """The end of an answer is learned, whether it serves as padding, too, or not."""
    for pad in (0, END):
        ids, targets, _ = _collated(answer, pad)
        assert all(END in [target for _, target in row] for row in _pairs(ids, targets))


def padding_is_not(answer: Callable) -> None:
    """What fills a row is never learned."""
    for pad in (0, END):
        ids, targets, samples = _collated(answer, pad)
        longest = max(len(tokens) for tokens, _ in samples)
        assert ids.shape[1] in (longest, longest - 1)
        for row, (_, learned) in zip(_pairs(ids, targets), samples, strict=True):
            assert len(row) == sum(learned)


# 17-4: rows(lengths, room)


def _lengths(seed: int, count: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 100, (count,), generator=generator).tolist()


def each_once(answer: Callable) -> None:
    """Each conversation stands in exactly one row."""
    for seed in range(3):
        lengths = _lengths(seed, 40)
        found = answer(list(lengths), 128)
        assert sorted(int(n) for row in found for n in row) == list(range(40))


def none_too_long(answer: Callable) -> None:
    """No row holds more than it has room for."""
    for seed in range(3):
        lengths = _lengths(seed, 40)
        assert all(sum(lengths[n] for n in row) <= 128 for row in answer(list(lengths), 128))


def few_rows(answer: Callable) -> None:
    """At most as many rows as the longest-first rule needs."""
    for seed in range(3):
        lengths = _lengths(seed, 60)
        space: list[int] = []
        for length in sorted(lengths, reverse=True):
            fits = [n for n, room in enumerate(space) if room >= length]
            if fits:
                space[fits[0]] -= length
            else:
                space.append(128 - length)
        assert len(answer(list(lengths), 128)) <= len(space)


# 17-5: sees(documents)

DOCUMENTS = torch.tensor([0, 0, 0, 1, 1, 2, -1, -1])


def _sees(answer: Callable) -> Tensor:
    found = answer(DOCUMENTS.clone())
    assert isinstance(found, Tensor) and found.shape == (8, 8)
    return found.bool()


def own_text_only(answer: Callable) -> None:
    """No token of a text sees a token of another one, and none sees padding."""
    found = _sees(answer)[:6]
    same = DOCUMENTS[:6, None] == DOCUMENTS[None]
    assert not bool((found & ~same).any())


def all_before(answer: Callable) -> None:
    """Each token sees itself and all of its text before it, and nothing after it."""
    found = _sees(answer)[:6, :6]
    same = DOCUMENTS[:6, None] == DOCUMENTS[None, :6]
    assert torch.equal(found, same & (torch.ones(6, 6).tril() == 1))


def no_empty_row(answer: Callable) -> None:
    """Padding sees something, or its softmax would divide by zero."""
    assert bool(_sees(answer).any(-1).all())


# 17-6: factors(delta, rank)


def _delta() -> Tensor:
    return torch.randn(6, 9, generator=torch.Generator().manual_seed(6))


def thin(answer: Callable) -> None:
    """Two matrices of the right shapes."""
    for rank in (1, 3, 6):
        b, a = answer(_delta(), rank)
        assert b.shape == (6, rank) and a.shape == (rank, 9)


def whole_at_full_rank(answer: Callable) -> None:
    """With full rank nothing is lost."""
    b, a = answer(_delta(), 6)
    assert torch.allclose(b @ a, _delta(), atol=1e-4)


def best(answer: Callable) -> None:
    """The error is that of the singular values left out, which no other pair undercuts."""
    values = torch.linalg.svdvals(_delta())
    for rank in (1, 2, 4):
        b, a = answer(_delta(), rank)
        lost = float((b @ a - _delta()).norm())
        assert abs(lost - float(values[rank:].norm())) < 1e-3
