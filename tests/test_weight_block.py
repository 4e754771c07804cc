"""The figure of a block in Python: its stored rows, and errors by hand."""

import numpy as np

from qwen2_book.checkpoint import blocks
from qwen2_book.widgets import WeightBlock, weight_block


def test_the_stored_rows_are_small_and_whole():
    data = weight_block.stored()
    assert weight_block.STORED.stat().st_size < 40_000
    for row in data["rows"]:
        weights = weight_block.unpack(row["weights"])
        assert weights.shape == (768,) and np.isfinite(weights).all()


def test_errors_are_those_of_the_types():
    figure = WeightBlock(row=2, kind="Q4_0", block=17, stretch=30)
    own = figure.weights()[17 * 32 : 18 * 32]
    assert np.isclose(figure.errors()[17], blocks.relative_error(own[None], "Q4_0"))
    before = WeightBlock(row=2, block=17).weights()[17 * 32 : 18 * 32]
    assert np.isclose(np.abs(own).max(), 3 * np.abs(before).max())
    assert (own != before).sum() == 1


def test_an_outlier_hurts_its_neighbours():
    calm, wild = (WeightBlock(stretch=s) for s in (10, 80))
    assert wild.lost() > calm.lost()


def test_bad_numbers_are_clamped():
    figure = WeightBlock(row=9, block=99, stretch=1)
    assert (figure.row, figure.block, figure.stretch) == (2, 23, 10)
    assert "block 99" in figure.note
