"""The router figure in Python: what it stores, and that it chooses as the package's layer does."""

import numpy as np
import torch
from torch import nn

from qwen2_book import Qwen2Config
from qwen2_book.moe import MixtureOfExperts
from qwen2_book.widgets import RouterFlow, router_flow


def test_what_is_stored_is_small_and_whole():
    data = router_flow.stored()
    assert router_flow.STORED.stat().st_size < 40_000
    assert len(data["losses"]) == 8 and data["layers"] == 3 and data["experts"] == 16
    for sentence, each in enumerate(data["sentences"]):
        for top_k in (1, 8):
            figure = RouterFlow(sentence=sentence, top_k=top_k)
            shape = (3, len(each["tokens"]))
            assert figure.probabilities().shape == (*shape, 16) and figure.shared().shape == shape
            assert np.allclose(figure.probabilities().sum(-1), 1, atol=0.01)
            assert (figure.shared() > 0).all() and (figure.shared() < 1).all()


def test_packing_keeps_thousandths():
    values = np.array([[0.0, 0.1234, 0.9996], [1.0, 0.0004, 0.5]])
    again = router_flow.unpack(router_flow.pack(values), 2, 3)
    assert np.allclose(again, values, atol=0.000501)


def test_the_choice_is_the_layers():
    for top_k, sentence in ((1, 0), (2, 2), (5, 3)):
        figure = RouterFlow(top_k=top_k, sentence=sentence)
        p = torch.tensor(figure.probabilities(), dtype=torch.float32).clamp_min(1e-6)
        settings = {"num_experts": 16, "num_experts_per_tok": top_k, "moe_intermediate_size": 4}
        layer = MixtureOfExperts(
            Qwen2Config(
                hidden_size=16,
                num_attention_heads=2,
                num_key_value_heads=1,
                shared_expert_intermediate_size=4,
                **settings,
            )
        )
        layer.gate = nn.Identity()
        weights, chosen = layer.route(p.log().flatten(0, 1))
        kept = np.take_along_axis(figure.probabilities(), figure.chosen(), -1)
        assert np.allclose(weights.view(kept.shape), kept, atol=0.01)
        again = np.take_along_axis(figure.probabilities(), chosen.view(kept.shape).numpy(), -1)
        assert np.array_equal(again, kept)  # the same experts, but for ties in thousandths


def test_the_loads_count_every_choice():
    figure = RouterFlow(top_k=3, layer=1)
    tokens = len(figure.data["sentences"][0]["tokens"])
    assert figure.loads().sum() == 3 * tokens
    by_hand = [sum(e in row for row in figure.chosen()[1].tolist()) for e in range(16)]
    assert figure.loads().tolist() == by_hand


def test_the_first_choices_stay_when_the_router_sees_the_same():
    """In layer 0 the router does not depend on top-k: more experts come behind the same ones."""
    few, many = RouterFlow(top_k=2), RouterFlow(top_k=6)
    assert np.array_equal(few.chosen()[0], many.chosen()[0][:, :2])
    assert not np.array_equal(few.probabilities()[2], many.probabilities()[2])


def test_bad_numbers_are_clamped_and_a_late_token_is_the_last():
    figure = RouterFlow(top_k=99, layer=-1, token=14, sentence=0)
    assert (figure.top_k, figure.layer) == (8, 0)
    assert "top_k 99" in figure.note
    assert "token . goes to" in figure.description()
