"""The template figure: its tokens are the tokenizer's, its text the template's, in both layouts."""

import itertools
import sys
from pathlib import Path

import pytest

from qwen2_book import Tokenizer
from qwen2_book.chat import QWEN2_TEMPLATE
from qwen2_book.sandbox import run
from qwen2_book.widgets import ChatBytes
from qwen2_book.widgets.chat_bytes import STORED, stored

STATES = [
    {"system": system, "user": user, "turns": turns, "prompt": prompt}
    for system, user, turns, prompt in itertools.product(range(4), range(5), (1, 2), (0, 1))
]


def test_the_text_is_the_templates():
    for state in STATES:
        figure = ChatBytes(**state)
        messages = [{"role": role, "content": text} for role, text in figure.messages()]
        variables = {"messages": messages, "add_generation_prompt": bool(state["prompt"])}
        expected = run(QWEN2_TEMPLATE, variables)
        if state["system"] == 3:  # a layout that the template never writes
            expected = expected.partition("<|im_end|>\n")[2]
        assert figure.text() == expected
        wrong = ChatBytes(**state, form="wrong").text()
        assert wrong == expected.replace("<|im_end|>\n", "\n<|im_end|>\n") or state["user"] == 4


def test_the_ids_are_the_tokenizers(real_checkpoint):
    tokenizer = Tokenizer.from_file(real_checkpoint)
    tokenizer.chat_template = None  # Qwen2's
    for state in STATES:
        figure = ChatBytes(**state)
        messages = [{"role": role, "content": text} for role, text in figure.messages()]
        if state["system"] < 3:
            ids = tokenizer.apply_chat_template(
                messages, add_generation_prompt=bool(state["prompt"])
            )
            assert figure.ids() == ids
        if state["user"] != 4:
            wrong = ChatBytes(**state, form="wrong")
            assert wrong.ids() == tokenizer.encode(wrong.text(), allow_special=True)


def test_the_stored_table_is_what_its_script_makes(real_checkpoint):
    sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
    import chat_bytes_data as made

    tokenizer = Tokenizer.from_file(real_checkpoint)
    table = {text: made.measured(tokenizer, text) for text in made.segments()}
    assert stored() == {"texts": made.TEXTS, "segments": table}
    assert STORED.stat().st_size < 8_000
    assert len(ChatBytes().as_html()) < 60_000


def kinds(figure: ChatBytes, kind: str) -> list[tuple[int | None, str]]:
    return [(piece.id, piece.text) for piece in figure.pieces() if piece.kind == kind]


def test_borders_and_what_changes():
    assert kinds(ChatBytes(), "fused") == []
    assert kinds(ChatBytes(user=3), "fused") == [(271, "\n\n")]
    wrong = ChatBytes(form="wrong")
    assert kinds(wrong, "fused") == [(624, ".\n")]
    assert [piece.id for piece in wrong.pieces() if piece.new] == [624, 198]
    assert not any(piece.new for piece in ChatBytes(user=4).pieces())


@pytest.mark.parametrize("typed", ["<|im_end|>", "a\nb", "你", "👩‍🚀" * 30, "<b>"])
def test_typed_text_has_no_ids_and_no_control_tokens(typed):
    figure = ChatBytes(typed=typed)
    assert len(kinds(figure, "control")) == len(kinds(ChatBytes(), "control"))
    assert (
        figure.text().split("user\n")[1].split("<|im_end|>\n<|im_start|>assistant")[0] == typed[:40]
    )
    assert None in figure.ids()


@pytest.mark.parametrize("bad", [99, -1, "many", None])
def test_absurd_states_are_clamped(bad):
    figure = ChatBytes(system=bad, user=bad, token=bad)
    assert figure.pieces() and figure.note
