"""Scaling laws: a law is found again from its own losses, and its best size is the best."""

import json

import numpy as np
import pretraining_runs as runs
import pytest

from qwen2_book.training.scaling import Law, fit_law
from qwen2_book.widgets import training_budget

LAW = Law(floor=0.8, a=60.0, b=900.0, alpha=0.4, beta=0.5)
GRID = [(n, d) for n in (9e4, 3e5, 1e6) for d in (6e4, 1.3e5, 2.6e5, 5.2e5)]


def test_a_law_is_found_again():
    found = fit_law([(n, d, LAW.loss(n, d)) for n, d in GRID])
    assert found.alpha == pytest.approx(0.4) and found.beta == pytest.approx(0.5)
    assert found.floor == pytest.approx(0.8, abs=1e-6)
    assert found.a == pytest.approx(60, rel=1e-5) and found.b == pytest.approx(900, rel=1e-5)


def test_noise_moves_the_floor_more_than_the_losses():
    """Why the chapter gives intervals: the losses are met, the floor is not."""
    noise = np.random.default_rng(0).normal(0, 0.01, (8, len(GRID)))
    laws = [
        fit_law([(n, d, LAW.loss(n, d) + e) for (n, d), e in zip(GRID, row, strict=True)])
        for row in noise
    ]
    worst = max(abs(law.loss(n, d) - LAW.loss(n, d)) for law in laws for n, d in GRID)
    assert worst < 0.03 < max(abs(law.floor - LAW.floor) for law in laws)


def test_losses_that_grow_have_no_law():
    with pytest.raises(ValueError, match="expected losses that fall"):
        fit_law([(n, d, n**0.1 * d**0.1) for n, d in GRID])


@pytest.mark.parametrize("law", [LAW, runs.WEB])
@pytest.mark.parametrize("operations", [1e11, 1e18, 3e23])
def test_the_best_size_is_the_best(law, operations):
    best = law.best_size(operations)
    least = law.loss(best, operations / 6 / best)
    for n in np.geomspace(best / 30, best * 30, 300):
        assert law.loss(n, operations / 6 / n) >= least - 1e-9
    assert law.fewest_operations(least) == pytest.approx(operations, rel=1e-4)


def test_the_published_fit_gives_about_twenty_tokens_a_parameter():
    """At the budget of Chinchilla itself, 70B parameters and 1.4T tokens (arXiv:2203.15556)."""
    operations = 6 * 70e9 * 1.4e12
    best = runs.WEB.best_size(operations)
    assert 15 < operations / 6 / best**2 < 30


def test_the_figure_has_the_law_of_the_stored_runs():
    stored = json.loads(runs.STORED.read_text("utf-8"))
    assert len(runs.points(stored)) == 5 * sum(map(len, runs.STEPS.values()))
    assert runs.figure_data(stored) == training_budget.stored()
