"""Sampling against transformers' own processors, and against its definition."""

import pytest
import torch

from qwen2_book.sampling import Sampler


def dense(sampler: Sampler, logits: torch.Tensor, history=None) -> torch.Tensor:
    probabilities, ids = sampler.candidates(logits, history)
    return torch.zeros_like(logits).scatter(1, ids, probabilities)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 5, 50, 500])
@pytest.mark.parametrize("top_p", [0.05, 0.8, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.1, 0.8])
def test_equal_to_transformers(temperature, top_k, top_p, penalty):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    logits, history = torch.randn(4, 200) * 3, torch.randint(0, 200, (4, 12))
    scores = logits
    warpers = [transformers.RepetitionPenaltyLogitsProcessor(penalty)]
    warpers += [transformers.TemperatureLogitsWarper(temperature)]
    warpers += [transformers.TopKLogitsWarper(top_k)] if top_k else []
    warpers += [transformers.TopPLogitsWarper(top_p)]
    for warper in warpers:
        scores = warper(history, scores)
    ours = dense(Sampler(temperature, top_k, top_p, penalty), logits, history)
    torch.testing.assert_close(ours, scores.softmax(-1), atol=1e-6, rtol=1e-5)


def test_the_order_matters():
    """Top-p looks at the tempered distribution: hot logits keep more tokens."""
    logits = torch.tensor([[4.0, 3.0, 2.0, 1.0]])
    kept = {t: int((dense(Sampler(t, top_p=0.8), logits) > 0).sum()) for t in (0.5, 1.0, 5.0)}
    assert kept[0.5] < kept[1.0] < kept[5.0]


def test_greedy_takes_the_best_after_the_penalty():
    logits = torch.tensor([[2.0, 1.9, -5.0]])
    assert Sampler(temperature=0).sample(logits).tolist() == [0]
    history = torch.tensor([[0, -1]])
    penalised = Sampler(temperature=0, repetition_penalty=1.2)
    assert penalised.sample(logits, history).tolist() == [1]


def test_padding_in_the_history_is_not_penalised():
    logits = torch.randn(2, 10)
    sampler = Sampler(repetition_penalty=1.5)
    padded = torch.tensor([[-1, -1, 3], [-1, 4, 4]])
    plain = [dense(sampler, logits[:1], torch.tensor([[3]]))]
    plain += [dense(sampler, logits[1:], torch.tensor([[4]]))]
    torch.testing.assert_close(dense(sampler, logits, padded), torch.cat(plain))


def test_draws_follow_the_distribution():
    logits = torch.tensor([[1.0, 0.5, 0.0, -1.0]])
    sampler = Sampler(temperature=0.7, top_k=3, seed=0)
    generator = sampler.generator(torch.device("cpu"))
    draws = sampler.sample(logits.expand(20_000, 4), None, generator)
    share = draws.bincount(minlength=4) / 20_000
    assert (share - dense(sampler, logits)[0]).abs().max() < 0.015
    assert share[3] == 0


def test_the_same_seed_draws_the_same():
    logits = torch.randn(5, 100)
    device = torch.device("cpu")
    first, again = (
        Sampler(seed=7).sample(logits, None, Sampler(seed=7).generator(device)) for _ in range(2)
    )
    assert first.tolist() == again.tolist()
    assert Sampler().generator(device) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("repetition_penalty", 0.0),
    ],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field}: found {value}"):
        Sampler(**{field: value})


def test_settings_of_a_checkpoint():
    released = {
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 20,
        "repetition_penalty": 1.1,
        "eos_token_id": [1],
    }
    assert Sampler.from_settings(released, 3) == Sampler(0.7, 20, 0.8, 1.1, 3)
    assert Sampler.from_settings({"do_sample": False}).temperature == 0
    assert Sampler.from_settings({}).temperature == 0
