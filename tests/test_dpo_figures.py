"""Chapter 18's figures, in Python: the package's losses, and the stored runs."""

import json
import math

import pytest
import torch

from qwen2_book.training.dpo import Margins, preference_loss
from qwen2_book.widgets import DpoMargin, DpoPlane
from qwen2_book.widgets.dpo_margin import BETAS, EPSILON, KINDS, loss, push
from qwen2_book.widgets.dpo_plane import ARMS, CURVES


@pytest.mark.parametrize("beta", BETAS)
def test_the_losses_are_the_packages(beta):
    """Answers of one token each, so that a sum is a mean and all forms can be compared."""
    h, ones = torch.linspace(-40, 40, 33, dtype=torch.float64), torch.ones(33, dtype=torch.float64)
    margins = Margins(h, torch.zeros_like(h), ones, ones)
    expected = {
        "sigmoid": preference_loss(margins, beta),
        "smoothed": preference_loss(margins, beta, label_smoothing=EPSILON),
        "ipo": preference_loss(margins, beta, "ipo"),
    }
    for kind, values in expected.items():
        found = torch.tensor([loss(kind, beta, float(each)) for each in h], dtype=torch.float64)
        torch.testing.assert_close(found, values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_push_is_minus_the_slope(kind):
    for beta in BETAS:
        for h in (-31.0, -3.3, 0.2, 7.7, 36.0):
            slope = (loss(kind, beta, h + 1e-5) - loss(kind, beta, h - 1e-5)) / 2e-5
            assert math.isclose(push(kind, beta, h), -slope, rel_tol=1e-4, abs_tol=1e-6)


def test_what_the_figure_says_first():
    figure = DpoMargin()
    found, here, share = figure.values()
    assert math.isclose(found, math.log1p(math.exp(-1.2))) and math.isclose(
        here, 0.1 * (1 - 1 / (1 + math.exp(-1.2)))
    )
    assert math.isclose(share, 2 * here / 0.1)
    assert "at h = 12.0" in figure.description()
    assert DpoMargin(kind="ipo", half_nats=10).values()[1] == pytest.approx(0)  # 1 / 2 beta = 5
    assert "half_nats 400 is outside -80 to 80" in DpoMargin(half_nats=400).note


def test_the_plane_holds_the_stored_runs():
    from dpo_plane_data import TARGET
    from preference_training import STORED

    data = json.loads(TARGET.read_text(encoding="utf-8"))
    runs = json.loads(STORED.read_text(encoding="utf-8"))["runs"]
    found = {(r["run"]["arm"], r["run"]["seed"]): r for r in runs if r["run"]["part"] == "offline"}
    assert TARGET.stat().st_size < 60_000
    for arm, extra in enumerate(("", " + sft")):
        for b, beta in enumerate(data["betas"]):
            for seed in range(5):
                run = data["runs"][arm][b][seed]
                stored = found[f"dpo {beta:g}{extra}", seed]
                assert run == [stored[name] for name in CURVES]
                assert [len(curve) for curve in run] == [len(data["steps"])] * len(CURVES)


def test_the_plane_says_where_the_run_is():
    figure = DpoPlane(look=20, arm=1, beta=1, seed=3)
    now = figure.now()
    assert now["step"] == 80 and now["margin"] == now["chosen"] - now["rejected"]
    assert math.isclose(
        now["loss"], -math.log(1 / (1 + math.exp(-0.1 * now["margin"]))), rel_tol=1e-9
    )
    start = DpoPlane(look=0).now()
    assert (start["chosen"], start["rejected"], start["formed"]) == (0, 0, 24)
    assert math.isclose(start["loss"], math.log(2))
    said = figure.description()
    assert ARMS[1] in said and f"{now['formed']} of 24 greedy answers" in said
