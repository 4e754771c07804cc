"""The budget figure in Python: its numbers are the law's, its models are Qwen2's."""

import pytest

from qwen2_book import Qwen2Config
from qwen2_book.costs import matmul_flops
from qwen2_book.widgets import TrainingBudget
from qwen2_book.widgets.training_budget import short, stored


@pytest.mark.parametrize(("world", "compute", "size"), [("web", 124, 92), ("little", 40, 60)])
def test_the_choice_costs_its_budget(world, compute, size):
    figure = TrainingBudget(world=world, compute=compute, size=size)
    operations, n, d = figure.choice()
    assert 6 * n * d == pytest.approx(operations)
    assert f"{figure.law.loss(n, d):.2f} nats" in figure.description()
    best = figure.law.best_size(operations)
    assert figure.law.loss(best, operations / 6 / best) <= figure.law.loss(n, d)


def test_the_models_are_the_released_ones():
    models = {name: (n, d) for name, n, d in stored()["worlds"]["web"]["models"]}
    assert list(models) == ["0.5B", "1.5B", "7B", "72B"]
    for name, (n, d) in models.items():
        assert n == matmul_flops(Qwen2Config.named(f"Qwen2-{name}")) // 2
        assert d == (12e12 if name == "0.5B" else 7e12)  # technical report, table 1
    _, n, d = TrainingBudget().choice()  # begins at the 7B
    assert n == pytest.approx(models["7B"][0], rel=0.03)
    assert d == pytest.approx(models["7B"][1], rel=0.06)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (12.2e12, "12.2T"),
        (494e6, "494M"),
        (65_536, "65.5K"),
        (100, "100"),
        (999.6, "1.00K"),
        (7, "7.00"),
    ],
)
def test_short_numbers(number, said):
    assert short(number) == said


def test_bad_numbers_are_clamped_and_an_unknown_world_is_refused():
    figure = TrainingBudget(compute=999, size=-1)
    assert (figure.compute, figure.size) == (200, 0)
    assert "compute 999" in figure.note
    with pytest.raises(ValueError, match="found world 'moon'"):
        TrainingBudget(world="moon")
