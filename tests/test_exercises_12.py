"""Chapter 12's exercises: planted bugs and usual wrong answers, each named by what fails."""

import json
import re

import pytest
from chapter import NOTEBOOKS
from test_exercises import answer_of

from qwen2_book.chat import QWEN2_TEMPLATE, parse_tool_calls
from qwen2_book.exercises import check
from qwen2_book.exercises.chatml_checks import BROKEN, DEFAULT, template_tokens
from qwen2_book.sandbox import run
from qwen2_book.widgets import ChatBytes


def printed(name: str):
    """The function that the chapter prints for an exercise, with its planted bugs."""
    text = (NOTEBOOKS / "text" / "12_chatml.md").read_text(encoding="utf-8")
    cell = next(c for c in re.findall(r"```{code-cell}.*?```", text, re.DOTALL) if f'"{name}"' in c)
    code = re.sub(r"^check.*", "", cell.split("\n", 1)[1].rstrip("`"), flags=re.MULTILINE)
    space: dict = {}
    exec(code, space)
    return next(value for key, value in space.items() if callable(value))


def fails(name: str, answer, wanted: str) -> None:
    verdict = check(name, answer)
    assert not verdict.right
    assert f"“{wanted}” fails" in verdict.message, verdict.message


def test_the_template_adds_what_the_tokens_show():
    """The same count on the figure's stored tokens: five a message, three for the answer."""
    for turns in (1, 2):
        figure = ChatBytes(turns=turns)
        own = sum(piece.kind in ("control", "role", "end") for piece in figure.pieces())
        assert own == 5 * len(figure.messages()) + 3
    assert template_tokens() == 5 * (1 + 10 + 10 + 1) + 3


def test_the_solution_of_12_2_is_the_template():
    chatml = answer_of("12-2")
    for talk in ([("user", "a")], [("system", "s"), ("user", "\n b "), ("assistant", "")]):
        messages = [{"role": role, "content": text} for role, text in talk]
        for opened in (True, False):
            variables = {"messages": messages, "add_generation_prompt": opened}
            assert chatml(messages, opened) == run(QWEN2_TEMPLATE, variables)


def variant(end="<|im_end|>\n", opened="<|im_start|>assistant\n", always=False, strip=False):
    def chatml(messages, open_answer):
        if always or messages[0]["role"] != "system":
            messages = [{"role": "system", "content": DEFAULT}, *messages]
        text = ""
        for m in messages:
            content = m["content"].strip() if strip else m["content"]
            text += f"<|im_start|>{m['role']}\n{content}{end}"
        return text + (opened if open_answer else "")

    return chatml


@pytest.mark.parametrize(
    ("faults", "wanted"),
    [
        ({"end": "\n<|im_end|>\n"}, "the text ends where its message ends"),
        ({"end": "<|im_end|>"}, "the text ends where its message ends"),
        ({"opened": "<|im_start|>assistant"}, "the answer is opened"),
        ({"opened": ""}, "the answer is opened"),
        ({"strip": True}, "texts stay as they are"),
    ],
)
def test_each_fault_of_the_layout_is_named(faults, wanted):
    assert check("12-2", variant()).right
    fails("12-2", variant(**faults), wanted)


def test_a_default_in_front_of_a_system_message_is_named():
    fails("12-2", variant(always=True), "one system message")


def test_the_printed_functions_have_their_bugs():
    fails("12-2", printed("12-2"), "the text ends where its message ends")
    fails("12-3", printed("12-3"), "the end of the text is learnt")
    fails("12-5", printed("12-5"), "the word in one piece")


def test_labels_by_length_only():
    fails("12-3", lambda ids, lengths: ids, "padding is not learnt")

    def last_only(ids, lengths):
        found = ids.masked_fill(ids == 151643, -100)
        for row, length in enumerate(lengths.tolist()):
            found[row, length:] = -100
            found[row, length - 1] = ids[row, length - 1]
        return found

    fails("12-3", last_only, "an end in the middle")


def by_pattern(text):
    """What stands between the tags, each read by itself: right but for one case."""
    bodies = re.findall(r"<tool_call>(.*?)(?:</tool_call>|\Z)", text, re.DOTALL)
    return [call for body in bodies for call in with_package(f"<tool_call>{body}</tool_call>")]


def with_package(text):
    """The package's reader in the exercise's form."""
    _, calls = parse_tool_calls(text)
    return [
        {"problem": c.problem} if c.problem else {"name": c.name, "arguments": c.arguments}
        for c in calls
    ]


def all_or_nothing(text):
    try:
        found = [json.loads(t) for t in re.findall(r"<tool_call>(.*?)</tool_call>", text, re.S)]
        return [{"name": c["name"], "arguments": c["arguments"]} for c in found]
    except Exception as error:
        return [{"problem": str(error)}]


def test_readers_of_calls():
    fails("12-4", lambda text: [], "whole calls, in order")
    fails("12-4", by_pattern, "an end tag inside a string")
    assert check("12-4", with_package).right
    verdict = check("12-4", all_or_nothing)
    assert not verdict.right
    for text in BROKEN.values():
        assert parse_tool_calls(text)[1][0].problem


def whole_text(pieces, stop):
    yield "".join(pieces).split(stop)[0]


def per_piece(pieces, stop):
    for piece in pieces:
        if stop in piece:
            yield piece.split(stop)[0]
            return
        yield piece


def forgets_the_rest(pieces, stop):
    held = ""
    for piece in pieces:
        held += piece
        if stop in held:
            yield held.split(stop)[0]
            return
        if not any(held.endswith(stop[:n]) for n in range(1, len(stop))):
            yield held
            held = ""


def always_holds(pieces, stop):
    held, n = "", len(stop) - 1
    for piece in pieces:
        held += piece
        if stop in held:
            yield held.split(stop)[0]
            return
        yield held[: max(0, len(held) - n)]
        held = held[max(0, len(held) - n) :]
    yield held


def test_stop_words():
    fails("12-5", whole_text, "asks no further")
    fails("12-5", per_piece, "the word in many pieces")
    fails("12-5", forgets_the_rest, "almost the word")
    fails("12-5", always_holds, "gives early")
