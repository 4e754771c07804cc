"""The book's colours: legible and apart, in grey, for every kind of vision, light and dark."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from qwen2_book.style import DASHES, GREY, INK, PAPER, SERIES, css_variables, dark

NIGHT = "#14181e"  # the ground of the website's dark pages
# Linear-light matrices of Machado, Oliveira and Fernandes (2009), severity 1.
VISION = {
    "all colours": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(colour: str) -> np.ndarray:
    parts = np.array(to_rgb(colour))
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, two: str) -> float:
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def lab(light: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear light."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ light / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("colour", [INK, GREY, *SERIES.values()])
def test_lines_and_words_stand_out_on_light_and_dark(colour):
    assert contrast(colour, PAPER) >= 3
    assert contrast(dark(colour), NIGHT) >= 3


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("shown", [str, dark], ids=["light", "dark"])
def test_series_stay_apart(vision, shown):
    seen = [
        lab(np.clip(np.array(VISION[vision]) @ linear(shown(colour)), 0, 1))
        for colour in SERIES.values()
    ]
    for i, one in enumerate(seen):
        for two in seen[:i]:
            assert np.linalg.norm(one - two) > 15


def test_series_stay_apart_in_grey():
    lightness = sorted(116 * luminance(colour) ** (1 / 3) - 16 for colour in SERIES.values())
    assert min(np.diff(lightness)) >= 7
    assert len(set(map(str, DASHES))) == len(SERIES)


def test_dark_is_what_the_browser_makes_of_it():
    assert dark("#ffffff") == "#000000"
    assert dark("#000000") == "#ffffff"
    assert dark("#808080") == "#7f7f7f"


def test_the_web_has_the_same_colours():
    text = css_variables()
    for name, colour in SERIES.items():
        assert f"--q2b-{name}:{colour};" in text
        assert f"--q2b-{name}:{dark(colour)};" in text


def test_chinese_is_drawn(tmp_path):
    """With a Chinese font installed, a label in two scripts has no box in it."""
    import matplotlib.pyplot as plt
    from matplotlib import font_manager

    from qwen2_book.style import FONTS, style

    installed = {font.name for font in font_manager.fontManager.ttflist}
    if not installed & set(FONTS[1:7]):
        pytest.skip("no Chinese font is installed (apt install fonts-wqy-microhei)")
    with style():
        figure, axis = plt.subplots()
        axis.set_title("attention 注意力 “对半”")
        figure.savefig(tmp_path / "a.png")  # a missing glyph would warn, and warnings are errors
        plt.close(figure)
