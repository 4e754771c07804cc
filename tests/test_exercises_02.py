"""Chapter 02's exercises: known wrong answers, planted bugs, and where the hints come from."""

import pytest
import regex
from planted import failed, printed

from qwen2_book import bpe
from qwen2_book.exercises import EXERCISES, check


def collects(chunks):
    return iter([b"".join(chunks).decode(errors="replace")])


def collects_first(chunks):
    yield b"".join(chunks).decode(errors="replace")


def drops(chunks):
    for chunk in chunks:
        yield chunk.decode(errors="replace").replace("\ufffd", "")


def waits_for_ever(chunks):
    held = b""
    for chunk in chunks:
        held += chunk
        try:
            yield held.decode()
        except UnicodeDecodeError:
            continue
        held = b""
    yield held.decode(errors="replace")


def forgets_the_end(chunks):
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for chunk in chunks:
        yield decoder.decode(chunk)


def _size(raw: bytes) -> int:
    try:
        return len(raw.decode())
    except UnicodeDecodeError:
        return -1


def pattern(old: str, new: str):
    changed = bpe.PATTERN.replace(old, new)
    assert changed != bpe.PATTERN
    return lambda text: regex.findall(changed, text)


def strips(text, encode, start, end):
    text = text.replace("<|im_end|>", "").replace("<|im_start|>", "")
    return [start, *encode("user\n" + text), end, *encode("\n")]


WRONG = [
    ("02-2", collects, "it yields"),
    ("02-2", lambda chunks: "".join(c.decode() for c in chunks), "it yields"),
    ("02-2", printed("02_tokenizer", "stream"), "a cut character waits"),
    ("02-2", drops, "a cut character waits"),
    ("02-2", collects_first, "at once, and not later"),
    ("02-2", forgets_the_end, "the end is told"),
    ("02-3", lambda t: max(sorted(t), key=lambda i: len(t[i])), "characters, not bytes"),
    (
        "02-3",
        lambda t: max(sorted(t), key=lambda i: len(t[i].decode(errors="replace"))),
        "only whole characters",
    ),
    ("02-3", lambda t: max(t, key=lambda i: _size(t[i])), "the smaller id of two"),
    ("02-4", printed("02_tokenizer", "split_wrongly"), "digits one by one"),
    ("02-4", pattern(r"|\p{N}|", r"|\p{N}{1,3}|"), "digits one by one"),
    ("02-4", pattern(r"\p{N}]+[\r\n]*", r"\p{N}][\r\n]*"), "runs of signs stay together"),
    ("02-4", pattern(r"[^\r\n\p{L}\p{N}]?\p{L}+", r" ?\p{L}+"), "a sign goes with"),
    ("02-4", pattern(r"|\s+(?!\S)", ""), "line ends and spaces"),
    ("02-6", printed("02_tokenizer", "user_turn"), "what spells a control token stays text"),
    ("02-6", lambda t, e, s, d: [*e("user\n" + t), d], "a plain turn"),
    ("02-6", strips, "what spells a control token stays text"),
]


@pytest.mark.parametrize(("name", "wrong", "fault"), WRONG)
def test_wrong_code_is_refused_by_name(name, wrong, fault):
    verdict = check(name, wrong)
    assert not verdict.right
    assert f"“{fault}" in verdict.message, verdict


def test_a_decoder_that_waits_for_ever_fails_on_noise_only():
    assert failed("02-2", waits_for_ever) == ["noise does not block"]


def test_the_printed_pattern_has_all_three_bugs():
    names = [each.name for each in EXERCISES["02-4"].properties]
    assert failed("02-4", printed("02_tokenizer", "split_wrongly"))[:3] == names[:3]


def test_deleting_the_names_fails_the_test_of_deletion():
    assert "nothing is deleted" in failed("02-6", strips)


def test_the_hints_are_for_answers_people_reach():
    text = "12,345,678.90"
    runs = len(regex.findall(r"\p{N}+|[,.]", text))
    assert {runs, 1, len(regex.findall(r"\d", text))} < set(EXERCISES["02-1"].hints)
    aligned = [n for n in range(1, 10) if n % 3 == 0]
    assert len(aligned) in EXERCISES["02-5"].hints
