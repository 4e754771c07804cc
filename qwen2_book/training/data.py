"""Packed batches: many texts in one row, and none of them sees another."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from qwen2_book.config import Qwen2Config
from qwen2_book.errors import TrainingError
from qwen2_book.model import Masks
from qwen2_book.window import visible

IGNORE = -100  # a target that is not learned
PADDING = -1  # the document number of what fills a row

Sample = tuple[Sequence[int], Sequence[bool]]  # token ids, and which of them are to be learned


@dataclass(frozen=True)
class Batch:
    """Rows of packed texts; all three tensors are int64 (rows, length).

    `targets` holds the token that follows each position, or IGNORE; `documents` numbers the texts
    of each row from 0, PADDING where there is none.
    """

    token_ids: Int[Tensor, "rows length"]
    targets: Int[Tensor, "rows length"]
    documents: Int[Tensor, "rows length"]

    @property
    def weight(self) -> int:
        """How many tokens are learned: what a mean loss is divided by."""
        return int((self.targets != IGNORE).sum())

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(*(t.to(device) for t in (self.token_ids, self.targets, self.documents)))


@runtime_checkable
class Source(Protocol):
    """Where batches come from: batch k is a function of k, so a run can resume anywhere."""

    @property
    def fingerprint(self) -> dict: ...

    def batch(self, index: int) -> Any: ...


@dataclass(frozen=True)
class PackedSource:
    """Batches packed from a stream of samples that starts anew, by number, for each batch.

    `samples(k)` yields the samples of batch k; `name` says what they are, for the run's record.
    `cut` goes on in the next row where a row is full (pretraining); otherwise a sample that does
    not fit into a row starts the next one, and one longer than a row is refused.
    """

    samples: Callable[[int], Iterable[Sample]]
    rows: int
    length: int
    name: str
    cut: bool = True

    @property
    def fingerprint(self) -> dict:
        """What a resumed run must find again."""
        return {"data": self.name, "rows": self.rows, "length": self.length, "cut": self.cut}

    def batch(self, index: int) -> Batch:
        """Batch `index`; its padding is what the last sample of each row leaves."""
        return pack(self.samples(index), self.rows, self.length, self.cut)


def pack(samples: Iterable[Sample], rows: int, length: int, cut: bool = True) -> Batch:
    """Fill `rows` rows of `length` tokens from samples, in order; see PackedSource for `cut`.

    The first token of a text is never a target. Raises TrainingError where the samples end before
    the first row is begun, and for a sample longer than a row that may not be cut.
    """
    shape = (rows, length)
    token_ids, targets = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORE)
    documents = torch.full(shape, PADDING)
    row, start, number = 0, 0, 0
    for ids, learned in samples:
        if not cut and len(ids) > length:
            raise TrainingError(
                f"a sample of {len(ids)} tokens: expected at most {length}, the length of a row. "
                "Shorten it, leave it out, or make the rows longer."
            )
        tokens, wanted = torch.tensor(ids), torch.tensor(learned, dtype=torch.bool)
        follows = torch.where(wanted, tokens, IGNORE)[1:]
        while len(tokens) and row < rows:
            room = length - start
            if room == 0 or (not cut and len(tokens) > room):
                row, start, number = row + 1, 0, 0
                continue
            take = min(room, len(tokens))
            token_ids[row, start : start + take] = tokens[:take]
            documents[row, start : start + take] = number
            targets[row, start : start + len(follows[:take])] = follows[:take]
            tokens, follows = tokens[take:], follows[take:]
            start, number = start + take, number + 1
        if row == rows:
            break
    if not bool((documents >= 0).any()):
        raise TrainingError("no samples: expected at least one text to make a batch of.")
    return Batch(token_ids, targets, documents)


def layout(
    documents: Int[Tensor, "rows length"], config: Qwen2Config
) -> tuple[Int[Tensor, "rows length"], Masks]:
    """Positions that restart with each text, and masks in which no text sees another.

    Padding counts as one more text: it sees only padding, and no text sees it.
    """
    index = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    positions = index - torch.where(begins, index, 0).cummax(1).values
    same = documents[:, :, None] == documents[:, None, :]
    masks: Masks = {}
    for window in dict.fromkeys(config.layer_windows):
        seen = visible(positions, positions, window, config.sink_tokens)
        masks[window] = (seen & same)[:, None]
    return positions, masks


def whole(ids: Sequence[int]) -> Sample:
    """A text of which every token is learned."""
    return ids, [True] * len(ids)


def unpacked(samples: Iterable[Sample]) -> Batch:
    """One text a row, padded on the right: the slow, obvious form of `pack`."""
    found = list(samples)
    length = max(chain([0], (len(ids) for ids, _ in found)))
    batches = [pack([sample], 1, length) for sample in found]
    return Batch(
        torch.cat([batch.token_ids for batch in batches]),
        torch.cat([batch.targets for batch in batches]),
        torch.cat([batch.documents for batch in batches]),
    )
