"""Byte-level byte-pair encoding from scratch: split, merge, train."""

import heapq
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import regex

# Qwen2's pre-tokenisation (its `tokenizer.json`): contractions; a run of letters with at most one
# other character before it; ONE digit; punctuation; line ends; other white space.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLIT = regex.compile(PATTERN)

Ranks = Mapping[tuple[str, str], int]


def _byte_characters() -> dict[int, str]:
    """A visible character for each byte: itself where it has one, else U+0100 and onwards."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    shown = {byte: chr(byte) for byte in visible}
    return shown | {byte: chr(256 + number) for number, byte in enumerate(others)}


CHARACTER_OF_BYTE = _byte_characters()
BYTE_OF_CHARACTER = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}


def words(text: str) -> list[str]:
    """NFC, then the pieces that merges never cross, each with its bytes as visible characters."""
    text = unicodedata.normalize("NFC", text)
    table = CHARACTER_OF_BYTE
    return ["".join([table[byte] for byte in w.encode()]) for w in _SPLIT.findall(text)]


def merge_slowly(word: str, ranks: Ranks) -> list[str]:
    """The definition: apply the lowest-ranked merge, leftmost first, until there is none left."""
    tokens = list(word)
    while pairs := [pair for pair in pairwise(tokens) if pair in ranks]:
        best = min(pairs, key=ranks.__getitem__)
        where = next(i for i, pair in enumerate(pairwise(tokens)) if pair == best)
        tokens[where : where + 2] = ["".join(best)]
    return tokens


def merge(word: str, ranks: Ranks) -> list[str]:
    """Equal to `merge_slowly` in n log n: a heap of merges over a linked list of tokens."""
    tokens: list[str] = list(word)
    right = [*range(1, len(tokens)), -1]
    left = [*range(-1, len(tokens) - 1)]
    heap = [(ranks[pair], i, *pair) for i, pair in enumerate(pairwise(tokens)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        _, here, first, second = heapq.heappop(heap)
        there = right[here]
        if tokens[here] != first or there < 0 or tokens[there] != second:
            continue  # one of the two has been merged since
        tokens[here], tokens[there] = first + second, ""
        right[here] = right[there]
        if right[here] >= 0:
            left[right[here]] = here
        for start, end in ((left[here], here), (here, right[here])):
            pair = (tokens[start], tokens[end])
            if start >= 0 and end >= 0 and pair in ranks:
                heapq.heappush(heap, (ranks[pair], start, *pair))
    return [token for token in tokens if token]


def train(texts: Iterable[str], tokens: int) -> list[tuple[str, str]]:
    """Learn merges: again and again join the commonest pair; equal counts go to the smaller pair.

    Ends with so many new tokens (two merges can make the same one), or when no pair occurs twice.
    Only words that hold the pair are looked at again, so a merge costs what it changes.
    """
    counts = Counter(word for text in texts for word in words(text))
    pieces = [list(word) for word in counts]
    weights = list(counts.values())
    pairs: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for number, piece in enumerate(pieces):
        for pair in pairwise(piece):
            pairs[pair] += weights[number]
            where[pair].add(number)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    learnt: list[tuple[str, str]] = []
    made: set[str] = set()
    while heap and len(made) < tokens:
        count, pair = heapq.heappop(heap)
        if pairs[pair] != -count:
            continue  # an old entry; a newer one is in the heap
        if count > -2:
            break
        learnt.append(pair)
        made.add("".join(pair))
        changed: Counter[tuple[str, str]] = Counter()
        for number in where.pop(pair):
            before, after = pieces[number], _join(pieces[number], pair)
            for old in pairwise(before):
                changed[old] -= weights[number]
            for new in pairwise(after):
                changed[new] += weights[number]
                where[new].add(number)
            pieces[number] = after
        for found, change in changed.items():
            if change:
                pairs[found] += change
                if pairs[found] > 0:
                    heapq.heappush(heap, (-pairs[found], found))
        where.pop(pair, None)
    return learnt


def _join(tokens: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """Every occurrence of the pair as one token, from left to right."""
    joined: list[str] = []
    i = 0
    while i < len(tokens):
        if i + 1 < len(tokens) and (tokens[i], tokens[i + 1]) == pair:
            joined.append(tokens[i] + tokens[i + 1])
            i += 2
        else:
            joined.append(tokens[i])
            i += 1
    return joined
