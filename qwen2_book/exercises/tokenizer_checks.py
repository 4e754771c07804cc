"""What right answers to the exercises of chapter 02 do: each check raises AssertionError if not."""

import inspect
from collections.abc import Callable, Iterable

from qwen2_book import bpe

START, END = 900_001, 900_002  # the control tokens of the injection exercise


def pieces_of_a_price() -> int:
    """Pieces of the text 12,345,678.90."""
    return len(bpe.words("12,345,678.90"))


def aligned_lengths() -> int:
    """For how many lengths up to 9 digits do threes cut from the left end where thousands do."""
    return sum(1 for digits in range(1, 10) if digits <= 3 or digits % 3 == 0)


# 02-2: stream(chunks), a generator of texts from an iterable of bytes


def stream_cases(cases: list[list[bytes]]) -> Callable:
    """Joined, the texts are those of all bytes; no text has U+FFFD where the bytes are whole."""

    def holds(stream: Callable) -> None:
        for chunks in cases:
            whole = b"".join(chunks).decode(errors="replace")
            texts = list(stream(iter(chunks)))
            assert all(isinstance(text, str) for text in texts)
            assert "".join(texts) == whole

    return holds


def stream_is_prompt(cases: list[tuple[list[bytes], list[int]]]) -> Callable:
    """Before chunk i is asked for, so many characters as case[1][i] have been handed over."""

    def holds(stream: Callable) -> None:
        for given, wanted in cases:
            found: list[str] = []
            late: list[int] = []

            def chunks(
                given: list[bytes] = given,
                wanted: list[int] = wanted,
                found: list[str] = found,
                late: list[int] = late,
            ) -> Iterable[bytes]:
                for chunk, least in zip(given, wanted, strict=True):
                    if len("".join(found)) < least:
                        late.append(least)
                    yield chunk

            for text in stream(chunks()):
                found.append(text)
            assert "".join(found) == b"".join(given).decode(errors="replace")
            assert not late

    return holds


# 02-3: longest(tokens), the id of the token that holds most characters


def longest_cases(cases: list[tuple[dict[int, bytes], int]]) -> Callable:
    """The reader's choice among {id: bytes} is the expected id."""

    def holds(longest: Callable) -> None:
        for tokens, expected in cases:
            assert int(longest(dict(tokens))) == expected

    return holds


# 02-4: split(text), Qwen2's pieces


def split_cases(texts: list[str]) -> Callable:
    """The reader's pieces are the pattern's, before NFC."""

    def holds(split: Callable) -> None:
        for text in texts:
            pieces = [piece.encode() for piece in split(text)]
            expected = [
                bytes(bpe.BYTE_OF_CHARACTER[character] for character in word)
                for word in bpe.words(text)
            ]
            assert pieces == expected

    return holds


# 02-6: user_turn(text, encode, start, end)


def _encode(text: str) -> list[int]:
    return list(text.encode())


def turn_cases(texts: list[str]) -> Callable:
    """Exactly the template's two control tokens, and the user's text unchanged between them."""

    def holds(user_turn: Callable) -> None:
        for text in texts:
            found = list(user_turn(text, _encode_all, START, END))
            expected = [START, *_encode("user\n" + text), END, *_encode("\n")]
            assert found == expected

    return holds


def _encode_all(text: str, allow_special: bool = False) -> list[int]:
    """Bytes as ids; with `allow_special`, what spells a control token becomes one."""
    if not allow_special:
        return _encode(text)
    for name, token in (("<|im_start|>", START), ("<|im_end|>", END)):
        before, found, after = text.partition(name)
        if found:
            return [*_encode_all(before, True), token, *_encode_all(after, True)]
    return _encode(text)


def is_generator(stream: Callable) -> None:
    """It yields as it goes, and does not collect first."""
    assert inspect.isgenerator(stream(iter([b"a"])))
