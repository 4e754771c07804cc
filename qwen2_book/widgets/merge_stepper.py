"""Byte-pair merging with the real ranks, one merge a step, on any text."""

from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import traitlets

from qwen2_book import bpe
from qwen2_book.widgets import merge_table
from qwen2_book.widgets.base import Figure, source

LONGEST = 120  # characters of the text


class Merge(NamedTuple):
    """One step: in which piece, the merge's rank, and its two parts in byte characters."""

    piece: int
    rank: int
    left: str
    right: str


class MergeStepper(Figure):
    """A text in pieces, its bytes, and every merge in the order in which it is applied.

    text: at most 120 characters. step: how many merges have been done.
    """

    MODULE: ClassVar[str] = "merge_stepper"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {"step": (0, 480)}

    _esm = source("merge_stepper")
    data = traitlets.Dict().tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    step = traitlets.Int(7).tag(sync=True)

    def __init__(self, text: str = "Hello 你好, tokenizer", **state: Any) -> None:
        super().__init__(text=text[:LONGEST], data=merge_table.stored(), **state)
        if len(text) > LONGEST:
            self.note = f"the text has {len(text)} characters: showing {LONGEST}"

    def merges(self, ranks: bpe.Ranks | None = None) -> list[Merge]:
        """All steps of this text, piece by piece; by default with the ranks that the page holds."""
        ranks = merge_table.stored_ranks() if ranks is None else ranks
        steps = []
        for number, word in enumerate(bpe.words(self.text)):
            tokens = list(word)
            while pairs := [pair for pair in pairwise(tokens) if pair in ranks]:
                best = min(pairs, key=ranks.__getitem__)
                at = list(pairwise(tokens)).index(best)
                tokens[at : at + 2] = ["".join(best)]
                steps.append(Merge(number, ranks[best], *best))
        return steps

    def ids(self) -> list[int]:
        """The ids of the text once all merges that the page holds are done."""
        ranks, id_of = merge_table.stored_ranks(), merge_table.stored_ids()
        return [id_of[t] for word in bpe.words(self.text) for t in bpe.merge(word, ranks)]

    def unsure(self) -> list[str]:
        """The pieces where a merge that the page leaves out may follow, in byte characters."""
        ranks = merge_table.stored_ranks()
        return [
            word
            for word in bpe.words(self.text)
            if any(merge_table.is_left_out("".join(p)) for p in pairwise(bpe.merge(word, ranks)))
        ]

    def description(self) -> str:
        words = bpe.words(self.text)
        return (
            f"Left, the text “{self.text}” cut into {len(words)} pieces of "
            f"{sum(map(len, words))} bytes; right, one piece after {self.step} merges of the "
            "text: its tokens as boxes, the rank of every neighbouring pair between them, and the "
            "pair of the lowest rank, which is joined next, in orange."
        )
