"""What right answers to the exercises of chapter 01 do: each check raises AssertionError if not."""

from collections.abc import Callable

import torch
from torch import Tensor

from qwen2_book.config import Qwen2Config
from qwen2_book.costs import parameters

SMALL = Qwen2Config(
    vocab_size=32_000,
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)


def small_total() -> int:
    """The parameters of the model in 01-1."""
    return parameters(SMALL)["total"]


def active_share() -> float:
    """Percent of Qwen2-57B-A14B's parameters that one token runs through."""
    counts = parameters(Qwen2Config.named("Qwen2-57B-A14B"))
    return 100 * counts["active"] / counts["total"]


def counts_as(*names: str) -> Callable:
    """The reader's count equals the package's for released sizes."""

    def holds(count: Callable) -> None:
        for name in names:
            config = Qwen2Config.named(name)
            assert int(count(config)) == parameters(config)["total"]

    return holds


# 01-3: rank(logits, token_id)


def rank_cases(cases: list[tuple[list[float], int, int]]) -> Callable:
    """The reader's rank for (logits, token, place) cases."""

    def holds(rank: Callable) -> None:
        for logits, token, place in cases:
            assert int(rank(torch.tensor(logits), token)) == place

    return holds


# 01-4: settled(firsts)


def settled_cases(cases: list[tuple[list, int]]) -> Callable:
    """The reader's answer for (likeliest tokens, blocks done) cases."""

    def holds(settled: Callable) -> None:
        for firsts, done in cases:
            assert int(settled(list(firsts))) == done

    return holds


# 01-5: lens(states, weight, head, eps)


def _parts() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    states = (
        torch.randn(4, 3, 8, generator=generator) * torch.tensor([0.1, 1, 4, 20])[:, None, None]
    )
    weight = torch.rand(8, generator=generator) + 0.5
    return states, weight, torch.randn(11, 8, generator=generator)


def _reading(state: Tensor, weight: Tensor, head: Tensor) -> Tensor:
    size = (state.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    return (state / size * weight @ head.T).softmax(-1)


def last_is_the_models(lens: Callable) -> None:
    """The last state reads as the model's own probabilities."""
    states, weight, head = _parts()
    found = lens(states, weight, head)
    assert found.shape == (4, 3, 11)
    assert torch.allclose(found[-1], _reading(states[-1], weight, head), atol=1e-5)


def every_state_alone(lens: Callable) -> None:
    """A state reads the same whether or not others are read with it."""
    states, weight, head = _parts()
    together = lens(states, weight, head)
    for number in range(len(states)):
        alone = _reading(states[number], weight, head)
        assert torch.allclose(together[number], alone, atol=1e-5)


def length_does_not_matter(lens: Callable) -> None:
    """A stream twice as long points the same way, and RMSNorm only sees the way."""
    states, weight, head = _parts()
    longer = states * torch.tensor([3.0, 0.5, 7.0, 1.0])[:, None, None]
    found, expected = lens(longer, weight, head), lens(states, weight, head)
    assert torch.allclose(found, expected, atol=1e-3)
