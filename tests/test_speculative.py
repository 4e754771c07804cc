"""Speculative decoding: the same tokens, the same distribution, fewer passes; reuse of prefixes."""

import itertools

import pytest
import torch

from qwen2_book.config import Qwen2Config
from qwen2_book.generate import generate
from qwen2_book.model import Qwen2
from qwen2_book.sampling import Sampler
from qwen2_book.speculative import (
    ModelDraft,
    PromptLookup,
    Reader,
    judge,
    speculate,
    with_layers,
)

CONFIG = Qwen2Config(
    vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, rope_theta=1e4, dtype="float32",
)  # fmt: skip
PROMPT = [5, 17, 25, 9, 33, 5, 17]


def made(config: Qwen2Config = CONFIG, seed: int = 0) -> Qwen2:
    torch.manual_seed(seed)
    model = Qwen2(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.ndim == 2 else 1)
    return model


@pytest.fixture(scope="module")
def model() -> Qwen2:
    return made()


class Always:
    """A draft that proposes the same tokens whatever the text is."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens

    def propose(self, ids, count, generator=None):
        return self.tokens[:count], None


def drafts(model: Qwen2) -> dict:
    return {
        "look-up": PromptLookup(),
        "two of three layers": ModelDraft(with_layers(model, (0, 2))),
        "another model": ModelDraft(made(seed=1)),
        "the model itself": ModelDraft(model),
        "nothing": Always([]),
        "always wrong": Always([1, 1, 1, 1, 1]),
    }


@pytest.mark.parametrize("name", drafts(made()))
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_tokens_are_those_of_generate(model, name, count, penalty):
    sampler = Sampler(temperature=0, repetition_penalty=penalty)
    expected = generate(model, [PROMPT], 20, sampler, stop=[])[0].tolist()
    found = speculate(model, PROMPT, drafts(model)[name], 20, count, sampler, stop=[])
    assert found.token_ids == expected
    assert found.passes + found.accepted >= len(expected)
    assert found.accepted <= found.proposed <= count * found.passes


def test_a_draft_that_is_the_model_saves_passes(model):
    found = speculate(model, PROMPT, ModelDraft(model), 30, 4, stop=[])
    assert (found.passes, found.proposed, found.accepted) == (6, 24, 24)
    nothing = speculate(model, PROMPT, Always([]), 30, 4, stop=[])
    assert (nothing.passes, nothing.proposed, nothing.accepted) == (30, 0, 0)


@pytest.mark.parametrize("steps", [0, 1, 2, 7])
def test_it_never_makes_too_many(model, steps):
    assert len(speculate(model, PROMPT, ModelDraft(model), steps, 4, stop=[]).token_ids) == steps


def test_it_ends_at_a_stop_token_inside_a_guess(model):
    free = generate(model, [PROMPT], 30, stop=[])[0].tolist()
    stop = free[2]
    expected = free[: free.index(stop) + 1]
    found = speculate(model, PROMPT, ModelDraft(model), 30, 4, stop=[stop])
    assert found.token_ids == expected


def after_judge(target: torch.Tensor, drafted: torch.Tensor) -> torch.Tensor:
    """The exact distribution of what `judge` leaves, worked out from its two halves."""
    kept = torch.minimum(target, drafted)
    rest = (target - drafted).clamp(min=0)
    return kept + (1 - kept.sum()) * rest / rest.sum().clamp(min=1e-30)


@pytest.mark.parametrize("seed", range(5))
def test_a_judged_token_is_a_draw_from_the_target(seed):
    generator = torch.Generator().manual_seed(seed)
    target, drafted = torch.rand(2, 5, generator=generator, dtype=torch.float64).pow(3)
    target, drafted = target / target.sum(), drafted / drafted.sum()
    torch.testing.assert_close(after_judge(target, drafted), target)
    counts, kept = torch.zeros(5), 0
    for _ in range(4000):
        token = int(torch.multinomial(drafted, 1, generator=generator))
        stays, token = judge(target, drafted, token, generator)
        counts[token] += 1
        kept += stays
    expected = 4000 * target
    assert float(((counts - expected) ** 2 / expected).sum()) < 18.5  # chi-square, 4 degrees, 0.1%
    share = float(torch.minimum(target, drafted).sum())
    assert abs(kept / 4000 - share) < 0.03


def test_certain_guesses_and_equal_distributions():
    target = torch.tensor([0.5, 0.5, 0.0])
    assert judge(target, torch.tensor([0.0, 0.0, 1.0]), 2)[0] is False
    assert judge(target, torch.tensor([0.0, 0.0, 1.0]), 2)[1] in (0, 1)
    assert judge(target, target, 1) == (True, 1)


SMALL = Qwen2Config(
    vocab_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=1, rope_theta=1e4, dtype="float32",
)  # fmt: skip


def exact(model: Qwen2, prompt: list[int], steps: int, sampler: Sampler) -> torch.Tensor:
    """The probability of every continuation, by going through all of them."""
    found = torch.ones(4**steps, dtype=torch.float64)
    for number, tokens in enumerate(itertools.product(range(4), repeat=steps)):
        ids = list(prompt)
        for token in tokens:
            with torch.no_grad():
                logits = model(torch.tensor([ids]))[:, -1]
            found[number] *= float(sampler.distribution(logits, torch.tensor([ids]))[0, token])
            ids.append(token)
    return found


@pytest.mark.parametrize("kind", ["look-up", "model"])
@pytest.mark.parametrize(
    "sampler", [Sampler(seed=0), Sampler(0.8, top_k=3, top_p=0.9, repetition_penalty=1.2, seed=1)]
)
def test_the_distribution_is_unchanged(kind, sampler, monkeypatch):
    """All 64 texts of three tokens: 1,000 speculated ones against the exact probabilities."""
    target, prompt, steps, runs = made(SMALL, 2), [1, 2, 0, 1], 3, 1000
    draft = PromptLookup() if kind == "look-up" else ModelDraft(made(SMALL, 3), Sampler())
    expected = exact(target, prompt, steps, sampler)
    assert abs(float(expected.sum()) - 1) < 1e-5
    generator = sampler.generator(torch.device("cpu"))
    monkeypatch.setattr(Sampler, "generator", lambda self, device: generator)
    counts, accepted = torch.zeros(4**steps, dtype=torch.float64), 0
    for _ in range(runs):
        found = speculate(target, prompt, draft, steps, 2, sampler, stop=[])
        a, b, c = found.token_ids
        counts[16 * a + 4 * b + c] += 1
        accepted += found.accepted
    assert accepted > runs / 10  # the draft is really used
    assert counts[expected == 0].sum() == 0
    often = expected * runs >= 5
    seen = torch.cat((counts[often], counts[~often].sum()[None]))
    wanted = torch.cat((expected[often], expected[~often].sum()[None])) * runs
    keep = wanted > 0
    chi = float(((seen - wanted)[keep] ** 2 / wanted[keep]).sum())
    degrees = int(keep.sum()) - 1
    assert chi < degrees + 4 * (2 * degrees) ** 0.5


def test_look_up_takes_the_latest_and_longest_match():
    assert PromptLookup(3).propose([1, 2, 3, 9, 1, 2, 3], 2) == ([9, 1], None)
    assert PromptLookup(1).propose([7, 4, 7, 5, 7], 3) == ([5, 7], None)
    assert PromptLookup(2).propose([1, 7, 4, 2, 7, 5, 1, 7], 1) == ([4], None)
    assert PromptLookup().propose([1, 2, 3], 4) == ([], None)
    assert PromptLookup().propose([1], 4) == ([], None)


TEXTS = ([1, 2, 3, 4, 5], [1, 2, 3, 9], [1, 2, 3, 9, 8, 7], [1, 2, 3, 9, 8, 7], [5], [5, 6])


def test_a_reader_gives_the_same_logits_and_runs_less(model):
    reader = Reader(model, 16)
    runs = []
    for text in TEXTS:
        for last in (1, min(2, len(text))):
            before = reader.tokens_run
            with torch.no_grad():
                expected = model(torch.tensor([text]))[0, -last:]
            torch.testing.assert_close(reader.logits(text, last), expected)
            runs.append(reader.tokens_run - before)
    assert runs[::2] == [5, 1, 2, 1, 1, 1]


def test_a_reader_with_a_window(model):
    sliding = model.with_window(2, 1)
    reader = Reader(sliding, 16)
    for text in TEXTS:
        with torch.no_grad():
            expected = sliding(torch.tensor([text]))[0, -1:]
        torch.testing.assert_close(reader.logits(text), expected)


def test_a_text_longer_than_the_reader_is_refused(model):
    with pytest.raises(ValueError, match="room for 3 tokens"):
        Reader(model, 3).logits([1, 2, 3, 4])


def test_a_draft_with_another_vocabulary_is_refused(model):
    with pytest.raises(ValueError, match="vocabulary of 4 tokens, expected the model's 40"):
        speculate(model, [1, 2], ModelDraft(made(SMALL)), 5)


def test_with_layers_shares_weights_and_keeps_order(model):
    small = with_layers(model, (2, 0))
    assert small.config.num_hidden_layers == 2
    ours, theirs = small.state_dict(), model.state_dict()
    name = "model.layers.{}.mlp.up_proj.weight"
    assert ours[name.format(0)].data_ptr() == theirs[name.format(2)].data_ptr()
    assert ours[name.format(1)].data_ptr() == theirs[name.format(0)].data_ptr()
    with torch.no_grad():
        whole = with_layers(model, (0, 1, 2))(torch.tensor([PROMPT]))
        torch.testing.assert_close(whole, model(torch.tensor([PROMPT])))
    with pytest.raises(ValueError, match="dense model"):
        with_layers(Qwen2(CONFIG.with_window(4, full_layers=1)), (0,))
