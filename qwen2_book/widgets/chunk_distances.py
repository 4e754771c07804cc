"""The distances of Dual Chunk Attention: how far each query thinks that each key is."""

from typing import ClassVar

import traitlets
from jaxtyping import Int
from torch import Tensor

from qwen2_book.dual_chunk import relative_positions
from qwen2_book.widgets.base import Figure, source


class ChunkDistances(Figure):
    """Distances under Dual Chunk Attention: the whole matrix, and one query's row as a curve.

    length: tokens, cut into pieces of `chunk - local`. chunk: the largest distance allowed. local:
    distances up to one more than this are true everywhere; at most half the chunk. query: the token
    whose row the curve shows.
    """

    MODULE: ClassVar[str] = "chunk_distances"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {
        "query": (0, 47),
        "length": (4, 48),
        "chunk": (2, 48),
        "local": (0, 24),
    }

    _esm = source("chunk_distances")
    query = traitlets.Int(29).tag(sync=True)
    length = traitlets.Int(40).tag(sync=True)
    chunk = traitlets.Int(14).tag(sync=True)
    local = traitlets.Int(4).tag(sync=True)

    def sizes(self) -> tuple[int, int, int]:
        """(query, chunk, local) as drawn: the query inside the text, `local` at most half."""
        return min(self.query, self.length - 1), self.chunk, min(self.local, self.chunk // 2)

    def row(self) -> Int[Tensor, "keys"]:
        """The distance at which the query meets each key, from the first key to itself."""
        query, chunk, local = self.sizes()
        return relative_positions(self.length, chunk, local)[query, : query + 1]

    def description(self) -> str:
        query, chunk, local = self.sizes()
        row = self.row()
        return (
            f"A triangle of {self.length} queries by {self.length} keys, shaded by the distance "
            f"that each pair has with chunk {chunk} and local {local}: the text is cut into pieces "
            f"of {chunk - local}. Beside it the row of query {query}: the true distance is a "
            f"straight line from {query} down to 0; the one that attention uses is a saw that "
            f"never passes {int(row.max())}."
        )
