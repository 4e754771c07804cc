"""What right answers to the exercises of chapter 11 do: each check raises AssertionError if not."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def tokens_read(prompt: int = 1000, new: int = 500) -> int:
    """Tokens that go through the model without a cache: pass number n reads prompt + n - 1."""
    return prompt * new + new * (new - 1) // 2


def tokens_left() -> int:
    """Of the exercise's five tokens, those that top-k 3 and then top-p 0.8 leave."""
    kept = torch.tensor([0.50, 0.20, 0.15])
    kept = kept / kept.sum()
    return int((kept.cumsum(0) - kept < 0.8).sum())


# 11-3: penalised(logits, history, penalty)


def penalty_cases(cases: list[tuple[list[float], list[int], float]]) -> Callable:
    """The penalty once on every real token of the history: (logits, history, penalty) cases."""

    def holds(penalised: Callable) -> None:
        for values, history, penalty in cases:
            expected = [
                (x / penalty if x > 0 else x * penalty) if token in history else x
                for token, x in enumerate(values)
            ]
            found = torch.as_tensor(penalised(torch.tensor(values), list(history), penalty))
            assert torch.allclose(found, torch.tensor(expected))

    return holds


def penalty_leaves_its_input(penalised: Callable) -> None:
    """The tensor that was handed in is as before."""
    logits = torch.tensor([2.0, -1.0, 0.5])
    penalised(logits, [0, 1], 1.5)
    assert logits.tolist() == [2.0, -1.0, 0.5]


# 11-4: min_p(p, least)


def min_p_cases(cases: list[tuple[list[float], float]]) -> Callable:
    """Tokens below the share of the likeliest are cut, the others scaled to a sum of one."""

    def holds(min_p: Callable) -> None:
        for values, least in cases:
            kept = [x if x >= least * max(values) else 0.0 for x in values]
            expected = torch.tensor(kept) / sum(kept)
            assert torch.allclose(torch.as_tensor(min_p(torch.tensor(values), least)), expected)

    return holds


# 11-5: send(chunks)


def sends(*texts: list[bytes]) -> Callable:
    """The pieces are the text, and none of them breaks a character."""

    def holds(send: Callable) -> None:
        for chunks in texts:
            found = list(send(iter(chunks)))
            assert "".join(found) == b"".join(chunks).decode()

    return holds


def sends_no_empty_pieces(send: Callable) -> None:
    """A chunk that ends no character gives no piece."""
    assert all(send(iter([b"\xe9", b"\xbe", b"\x98"])))


def sends_the_rest(send: Callable) -> None:
    """A text that ends inside a character shows it."""
    assert "".join(send(iter([b"ab", b"\xe9\xbe"]))) == "ab\ufffd"


def sends_at_once(send: Callable) -> None:
    """A whole character is sent before the next chunk is taken."""
    taken: list[bytes] = []

    def chunks() -> Iterator[bytes]:
        for chunk in (b"\xe9\xbe", b"\x98", b"x"):
            taken.append(chunk)
            yield chunk

    assert next(iter(send(chunks()))) == "龘"
    assert len(taken) == 2


# 11-6: next_positions(mask)


def position_cases(rows: list[list[int]]) -> Callable:
    """The next token's position is the number of real tokens of its row."""

    def holds(next_positions: Callable) -> None:
        found = torch.as_tensor(next_positions(torch.tensor(rows, dtype=torch.bool)))
        assert found.tolist() == [sum(row) for row in rows]

    return holds


# 11-7: recover(target, guess)


def _target() -> Tensor:
    return torch.tensor([0.1, 0.4, 0.3, 0.2])


def recovers_without_the_guess(recover: Callable) -> None:
    """A refused guess can't be drawn."""
    for guess in range(4):
        assert recover(_target(), guess)[guess] == 0


def recovers_a_distribution(recover: Callable) -> None:
    """What is handed back sums to one."""
    for guess in range(4):
        assert abs(float(recover(_target(), guess).sum()) - 1) < 1e-6


def recover_leaves_its_input(recover: Callable) -> None:
    """The tensor that was handed in is as before."""
    target = _target()
    recover(target, 1)
    assert torch.equal(target, _target())


def recovery_is_exact(recover: Callable) -> None:
    """The guess with its own probability, else a draw from here: together the target."""
    for guess in range(4):
        target = _target()
        kept = target[guess]
        total = (1 - kept) * recover(target.clone(), guess)
        total[guess] += kept
        assert torch.allclose(total, target)
