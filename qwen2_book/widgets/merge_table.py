"""The real merges, packed small enough for a page: pairs of token numbers, deflated, in base 85.

Left out are rare merges of program text (`is_left_out`): it can be seen from a pair alone whether
it may be one of them, so a figure can say where its table ends.
"""

import base64
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from qwen2_book.bpe import BYTE_OF_CHARACTER, CHARACTER_OF_BYTE

STORED = Path(__file__).with_name("merge_stepper.json")  # written by tools/merge_data.py
ALWAYS = 20_000  # merges of a rank below it are all kept

# A sign beside a Latin letter, a capital inside a word, or three capitals together.
_CODE = re.compile(
    r"[a-z][A-Z]|[A-Z]{3}|[!-/:-@\[-`{-~][A-Za-z]|[A-Za-z][!-/:-@\[-`{-~]",
)
# Printable, and safe in JSON and in HTML attributes.
_SAFE = "".join(chr(code) for code in range(33, 127) if chr(code) not in "\"&'<>\\")[:85]
_B85 = (
    "".join(chr(c) for c in b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    + "!#$%&()*+-;<=>?@^_`{|}~"
)

Pair = tuple[str, str]


def is_left_out(token: str) -> bool:
    """Whether the merge that makes this token is left out, if its rank is not below `ALWAYS`."""
    return bool(_CODE.search(token))


def varints(numbers: Iterable[int]) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    out = bytearray()
    for number in numbers:
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)
    return bytes(out)


def read_varints(raw: bytes) -> list[int]:
    """The numbers that `varints` was given."""
    numbers, number, shift = [], 0, 0
    for byte in raw:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(number)
            number = shift = 0
    return numbers


def pack(merges: Sequence[Pair]) -> tuple[int, str]:
    """How many merges are kept, and their text: gaps between ranks, then lefts, then rights.

    Tokens are numbered 0 to 255 for the bytes in the order of their ids, then the kept merges.
    Raises KeyError where a kept merge is made of one left out.
    """
    number = {character: i for i, character in enumerate(byte_order())}
    gaps, lefts, rights, last = [], [], [], -1
    for rank, (left, right) in enumerate(merges):
        if rank >= ALWAYS and is_left_out(left + right):
            continue
        gaps.append(rank - last - 1)
        lefts.append(number[left])
        rights.append(number[right])
        number[left + right] = len(number)
        last = rank
    packed = zlib.compress(varints(gaps + lefts + rights), 9)
    packed += b"\0" * (-len(packed) % 4)
    text = base64.b85encode(packed).decode().translate(str.maketrans(_B85, _SAFE))
    return len(gaps), text


def unpack(text: str) -> dict[Pair, int]:
    """The kept merges with their ranks."""
    raw = base64.b85decode(text.translate(str.maketrans(_SAFE, _B85)))
    numbers = read_varints(zlib.decompressobj().decompress(raw))
    count = len(numbers) // 3
    tokens, ranks, rank = byte_order(), {}, -1
    for i in range(count):
        rank += numbers[i] + 1
        pair = tokens[numbers[count + i]], tokens[numbers[2 * count + i]]
        ranks[pair] = rank
        tokens.append("".join(pair))
    return ranks


def byte_order() -> list[str]:
    """The byte characters by their ids: those with a character of their own first."""
    return sorted(CHARACTER_OF_BYTE.values())


def bytes_of(token: str) -> bytes:
    """The bytes of a token in byte characters."""
    return bytes(BYTE_OF_CHARACTER[character] for character in token)


@cache
def stored() -> dict[str, Any]:
    """The stored table: `source`, `merges` in all, `kept`, and the packed `table`."""
    data: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return data


@cache
def stored_ranks() -> dict[Pair, int]:
    """The stored merges with their ranks."""
    return unpack(stored()["table"])


@cache
def stored_ids() -> dict[str, int]:
    """The ids of the bytes and of what the stored merges make."""
    ids = {token: i for i, token in enumerate(byte_order())}
    return ids | {"".join(pair): 256 + rank for pair, rank in stored_ranks().items()}
