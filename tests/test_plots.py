"""The figures: the data behind them, and that no script or token breaks them."""

import io
import warnings

import matplotlib
import pytest
import torch

from qwen2_book.config import Qwen2Config
from qwen2_book.model import Qwen2
from qwen2_book.plots import attention_windows
from qwen2_book.trace import trace

matplotlib.use("agg")
CONFIG = Qwen2Config(
    vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, dtype="float32",
)  # fmt: skip
TOKENS = ["$x$", "<b>", "&amp;", "猫", "ไทย", "\n", " a", "\t", "\ufffd", "\\frac{", "", "😀"]


@pytest.fixture(scope="module")
def seen():
    torch.manual_seed(0)
    return trace(Qwen2(CONFIG), list(range(len(TOKENS))))


def test_titles_tell_the_share_inside_the_window(seen):
    figure = attention_windows(seen, TOKENS, [(0, 1), (1, 3)], window=3, sink_tokens=1)
    for axis, (layer, head) in zip(figure.axes, [(0, 1), (1, 3)], strict=True):
        kept = seen.mass_in_window(layer, 3, 1)[0, head].mean()
        assert axis.get_title() == f"layer {layer}, head {head}: {kept:.0%} inside"
        drawn = torch.tensor(axis.images[0].get_array().data)
        torch.testing.assert_close(drawn.square(), seen.attention[layer][0, head])


def test_the_shaded_cells_are_those_that_the_window_hides(seen):
    figure = attention_windows(seen, TOKENS, [(0, 0)], window=3, sink_tokens=2)
    shade = figure.axes[0].images[1].get_array()[:, :, 3] > 0
    for i in range(12):
        for j in range(12):
            assert shade[i, j] == (j <= i - 3 and j >= 2)


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_any_token_can_be_drawn_without_a_warning(seen, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = attention_windows(seen, TOKENS, [(0, 0)], window=2)
        from qwen2_book.plots import save_figure

        save_figure(figure, out := io.BytesIO(), kind)
    assert len(out.getvalue()) > 1000
    if kind == "svg":
        assert b"<b>" not in out.getvalue()


def test_long_prompts_have_no_labels(seen):
    long = trace(Qwen2(CONFIG), [1] * 70, [0], [0])
    figure = attention_windows(long, ["a"] * 70, [(0, 0)])
    assert not figure.axes[0].get_xticklabels()
