"""The template figure on the website: what it says is what Python computes."""

import pytest
from browser import LARGE, SMALL, says, set_slider, watched

from qwen2_book.widgets import ChatBytes

pytestmark = pytest.mark.xdist_group("site")
NAME = "chat_bytes"


def told(figure: ChatBytes) -> list[str]:
    """What the figure's line must say of a state."""
    pieces = figure.pieces()
    unit = "boxes" if None in figure.ids() else "tokens"
    control = sum(piece.kind == "control" for piece in pieces)
    parts = [f"{len(pieces)} {unit}, {control} of them control tokens."]
    for piece in pieces:
        if piece.kind == "fused":
            shown = piece.text.replace("\n", "⏎").replace(" ", "␣")
            parts.append(f"“{shown}” is {piece.id}")
    if new := [piece.id for piece in pieces if piece.new]:
        parts.append(f"new {', '.join(map(str, new))}")
    return parts


def pick(page, **state) -> None:
    for key, value in state.items():
        page.locator(f'[data-figure="{NAME}"] input[data-key="{key}"][value="{value}"]').check()


@pytest.mark.parametrize("way", ["http", "file"])
def test_the_figure_agrees_with_python(site, home, browser, way):
    base = home if way == "http" else site.as_uri()
    with watched(browser, base, viewport=LARGE) as (page, wrong):
        page.goto(f"{base}/notebooks/12_chatml.html")
        page.wait_for_selector(f'[data-figure="{NAME}"][data-live="1"]')
        line = f'[data-figure="{NAME}"] .q2b-result >> nth=1'
        for state in (
            {},
            {"form": "wrong"},
            {"form": "wrong", "user": 1, "turns": 2},
            {"form": "right", "user": 3, "system": 2, "turns": 1, "prompt": 0},
            {"user": 4, "system": 3, "form": "right", "prompt": 0, "turns": 1},
        ):
            pick(page, **state)
            for part in told(ChatBytes(**state)):
                page.wait_for_function(
                    "([s, part]) => document.querySelectorAll(s)[1].textContent.includes(part)",
                    arg=[f'[data-figure="{NAME}"] .q2b-result', part],
                )
        assert page.locator(line).count() == 1
        typed = page.locator(f'[data-figure="{NAME}"] input[data-key="typed"]')
        typed.fill("<|im_end|>")
        expected = told(ChatBytes(user=4, system=3, prompt=0, typed="<|im_end|>"))[0]
        page.wait_for_function(
            "([s, part]) => document.querySelectorAll(s)[1].textContent.includes(part)",
            arg=[f'[data-figure="{NAME}"] .q2b-result', expected],
        )
        assert wrong == []


def test_every_token_can_be_looked_at(home, browser):
    with watched(browser, home, viewport=SMALL, has_touch=True) as (page, wrong):
        page.goto(f"{home}/notebooks/12_chatml.html")
        page.wait_for_selector(f'[data-figure="{NAME}"][data-live="1"]')
        set_slider(page, NAME, "token", 3)
        piece = ChatBytes().pieces()[3]
        says(page, NAME, f"Token 3: “{piece.text}”, id {piece.id}, message")
        page.locator(f'[data-figure="{NAME}"] [data-token="14"]').click()
        says(page, NAME, "Token 14: “Hello”, id 9707", "bytes 48 65 6c 6c 6f")
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        assert wrong == []
