"""The sampling figure: what it says from stored sums is what the sampler does to all tokens."""

import base64
import math

import numpy as np
import pytest
import torch

from qwen2_book.widgets import SamplingKnobs
from qwen2_book.widgets.sampling_knobs import (
    KEPT,
    STORED,
    TEMPERATURES,
    measured,
    shown,
    stored,
)

VOCABULARY = 4000


@pytest.fixture(scope="module")
def made() -> tuple[torch.Tensor, list[int], dict]:
    """Random logits of thousandths, some tokens seen, and what is stored of them."""
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(VOCABULARY, generator=generator, dtype=torch.float64)).round(
        decimals=3
    )
    best = logits.argsort(descending=True)
    seen = [int(best[0]), int(best[3]), int(best[200]), int(best[3000]), int(best[0])]
    texts = {i: str(i) for i in range(VOCABULARY)}
    return logits, seen, measured(logits.numpy(), seen, texts)


STATES = [
    {},
    {"temperature": 1},
    {"temperature": 40},
    {"temperature": 0, "penalty": 150},
    {"top_k": 1},
    {"top_k": 50, "temperature": 30},
    {"top_k": 200, "top_p": 90, "penalty": 130},
    {"top_p": 50},
    {"top_p": 1},
    {"temperature": 14, "top_k": 20, "top_p": 80, "penalty": 110},
    {"penalty": 200},
    {"penalty": 200, "temperature": 10, "top_p": 70},
]


@pytest.mark.parametrize("state", STATES, ids=str)
def test_equal_to_the_sampler_over_the_whole_vocabulary(made, state):
    logits, seen, found = made
    figure = SamplingKnobs({"prompts": [{"text": "", "name": "", **found}]}, **state)
    sampler, ours = figure.sampler, figure.outcome()
    exact = sampler.distribution(logits[None].float(), torch.tensor([seen]))[0].double()
    ids = [int(text) for text in found["tokens"]]
    assert not ours.open
    np.testing.assert_allclose(ours.probabilities, exact[ids], atol=2e-5)
    cut = {"top_k", "top_p"} & set(state) or state.get("temperature") == 0
    assert ours.kept == (int((exact > 0).sum()) if cut else VOCABULARY)
    positive = exact[exact > 0]
    assert abs(ours.entropy - float(-(positive * positive.log()).sum())) < 1e-3
    if state.get("temperature", 20):
        before = SamplingKnobs(
            {"prompts": [{"text": "", "name": "", **found}]},
            **{**state, "top_k": 0, "top_p": 100},
        )
        whole = before.sampler.distribution(logits[None].float(), torch.tensor([seen]))[0]
        assert abs(ours.mass - float(whole[exact > 0].sum())) < 1e-4


def test_a_cut_inside_the_rest_is_said_to_be_open(made):
    logits, seen, found = made
    figure = SamplingKnobs(
        {"prompts": [{"text": "", "name": "", **found}]}, temperature=40, top_p=99
    )
    ours = figure.outcome()
    exact = figure.sampler.distribution(logits[None].float(), torch.tensor([seen]))[0]
    assert ours.open
    assert KEPT <= ours.kept < int((exact > 0).sum())
    ids = [int(text) for text in found["tokens"]]
    assert float((torch.from_numpy(ours.probabilities) - exact[ids]).abs().max()) < 1e-3


def test_what_is_stored_is_what_the_checkpoint_gives(real_checkpoint):
    from qwen2_book import load

    model, tokenizer = load(real_checkpoint, dtype="float32")
    assert STORED.stat().st_size < 40_000
    for prompt in stored()["prompts"][:2]:
        ids = tokenizer.encode(prompt["text"])
        with torch.no_grad():
            logits = model(torch.tensor([ids]), last_only=True)[0, 0, : model.vocab_limit]
        best = logits.argsort(descending=True, stable=True)[:20]
        kept = np.frombuffer(base64.b64decode(prompt["logits"]), "<i2") / 1000
        assert np.abs(np.sort(kept)[::-1][:20] - logits[best].numpy()).max() < 0.02
        assert [shown(tokenizer.token_bytes(int(i))) for i in best[:5]] == prompt["tokens"][:5]
        assert len(prompt["tokens"]) + prompt["rest"]["count"] == model.vocab_limit
        exact = SamplingKnobs().sampler.distribution(logits[None], torch.tensor([ids]))[0]
        number = [p["name"] for p in stored()["prompts"]].index(prompt["name"])
        ours = SamplingKnobs(prompt=number).outcome()
        assert abs(float(exact.max()) - ours.probabilities.max()) < 0.01


def test_shown_tokens():
    assert shown(b" the") == " the"
    assert shown(b"\xe9\xbe") == "⟨e9 be⟩"
    assert shown("\u200d".encode()) == "⟨U+200D⟩"
    assert shown("\u0947".encode()).startswith("◌")


def test_the_steps_of_the_slider():
    assert TEMPERATURES[0] == 0 and TEMPERATURES[20] == 1 and len(TEMPERATURES) == 41
    assert math.isnan(SamplingKnobs(temperature=0).outcome().mass)


@pytest.mark.parametrize("bad", [999, -1, "many", None])
def test_absurd_states_are_clamped(bad):
    figure = SamplingKnobs(prompt=bad, temperature=bad, top_k=bad, top_p=bad, penalty=bad)
    assert figure.outcome().kept >= 1
    assert figure.note
