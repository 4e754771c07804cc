"""What right answers to the exercises of chapter 12 do: each check raises AssertionError if not."""

import json
from collections.abc import Callable, Iterator

import torch

DEFAULT = "You are a helpful assistant."


def template_tokens() -> int:
    """Tokens of the template around 22 messages and an opened answer, their texts not counted."""
    return 22 * 5 + 3


# 12-2: chatml(messages, open_answer)


def _block(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def chatml_cases(cases: list[tuple[list[tuple[str, str]], bool]]) -> Callable:
    """The reader's text equals the template's for (role, text) pairs, with an answer opened or not.

    Conversations without a system message get the default one.
    """

    def holds(chatml: Callable) -> None:
        for told, opened in cases:
            messages = [{"role": role, "content": text} for role, text in told]
            whole = told if told[0][0] == "system" else [("system", DEFAULT), *told]
            expected = "".join(_block(*pair) for pair in whole)
            expected += "<|im_start|>assistant\n" * opened
            assert chatml(messages, opened) == expected
            assert [tuple(m.values()) for m in messages] == told  # the reader's list is not changed

    return holds


# 12-3: labels(ids, lengths)


def labels_cases(cases: list[tuple[list[list[int]], list[int]]]) -> Callable:
    """Targets are the ids themselves up to each length and -100 after it."""

    def holds(labels: Callable) -> None:
        for rows, lengths in cases:
            ids = torch.tensor(rows)
            found = torch.as_tensor(labels(ids.clone(), torch.tensor(lengths)))
            assert found.shape == ids.shape
            for row, target, length in zip(rows, found.tolist(), lengths, strict=True):
                assert target == row[:length] + [-100] * (len(row) - length)

    return holds


# 12-4: read_calls(text)


def _tagged(*calls: object) -> str:
    return "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)


ADD = {"name": "add", "arguments": {"a": 1, "b": 2}}
NOTE = {"name": "note", "arguments": {"text": "} </tool_call> {", "n": {"deep": [1]}}}
BROKEN = {
    "not JSON": '<tool_call>\n{"name": "add", "arguments": {"a": 1,}}\n</tool_call>',
    "cut off": '<tool_call>\n{"name": "add", "arguments": {"a": 1',
    "not an object": "<tool_call>[1, 2]</tool_call>",
    "no name": '<tool_call>{"arguments": {}}</tool_call>',
    "the name is a number": '<tool_call>{"name": 7, "arguments": {}}</tool_call>',
    "arguments that are a list": '<tool_call>{"name": "add", "arguments": [1, 2]}</tool_call>',
    "nested without end": "<tool_call>" + "[" * 50_000 + "</tool_call>",
}


def reads(*cases: tuple[str, list[dict]]) -> Callable:
    """Whole calls come back as name and arguments, in order."""

    def holds(read_calls: Callable) -> None:
        for text, expected in cases:
            assert list(read_calls(text)) == expected

    return holds


def _problems(read_calls: Callable) -> None:
    for text in BROKEN.values():
        (found,) = list(read_calls(text))
        assert set(found) == {"problem"}
        assert isinstance(found["problem"], str) and found["problem"]


def _one_bad_among_good(read_calls: Callable) -> None:
    text = "\n".join([_tagged(ADD), BROKEN["not JSON"], "and", _tagged(ADD)])
    first, second, third = list(read_calls(text))
    assert (first, third) == (ADD, ADD)
    assert set(second) == {"problem"}


whole_calls = reads((_tagged(ADD), [ADD]), (f"I add.\n{_tagged(ADD, ADD)} Done.", [ADD, ADD]))
no_calls = reads(("Just talk.", []), ("", []))
text_arguments = reads(
    (_tagged({"name": "add", "arguments": '{"a": 1, "b": 2}'}), [ADD]),
)
tags_inside = reads((_tagged(NOTE), [NOTE]), (_tagged(NOTE, ADD), [NOTE, ADD]))
problems = _problems
one_bad_among_good = _one_bad_among_good


# 12-5: until(pieces, stop)


def _counted(pieces: list[str], taken: list[str]) -> Iterator[str]:
    for piece in pieces:
        taken.append(piece)
        yield piece


def stops(*cases: tuple[list[str], str, str]) -> Callable:
    """The text before the stop word, and nothing after it, for (pieces, stop, text) cases."""

    def holds(until: Callable) -> None:
        for pieces, stop, expected in cases:
            assert "".join(until(iter(pieces), stop)) == expected

    return holds


def asks_no_further(until: Callable) -> None:
    """When the stop word is complete no further piece is made."""
    taken: list[str] = []
    assert "".join(until(_counted(["ab", "ST", "OP", "never"], taken), "STOP")) == "ab"
    assert "never" not in taken


def gives_early(until: Callable) -> None:
    """Text that can't be the beginning of the stop word is given before more is asked for."""
    taken: list[str] = []
    given = ""
    for text in until(_counted(["Hello ", "world", "!"], taken), "STOP"):
        given += text if len(taken) == 1 else ""
    assert given == "Hello "
