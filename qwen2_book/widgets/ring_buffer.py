"""The cache that goes round: which slot each token takes, and what the query still sees."""

from typing import ClassVar

import traitlets

from qwen2_book.widgets.base import Figure, source


class RingBuffer(Figure):
    """A ring of `window` slots while a text is generated; it can be stepped or played.

    token: the position of the newest token. window: slots of the ring, and keys a query sees.
    """

    MODULE: ClassVar[str] = "ring_buffer"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {"token": (0, 63), "window": (1, 16)}

    _esm = source("ring_buffer")
    token = traitlets.Int(11).tag(sync=True)
    window = traitlets.Int(8).tag(sync=True)

    def slots(self) -> list[int]:
        """The position that each slot holds, -1 where nothing has been written yet."""
        held = [-1] * self.window
        for position in range(self.token + 1):
            held[position % self.window] = position
        return held

    def description(self) -> str:
        held = ", ".join(str(p) if p >= 0 else "nothing" for p in self.slots())
        return (
            f"A ring of {self.window} cache slots after token {self.token}: they hold the "
            f"positions {held}; the newest is in slot {self.token % self.window}."
        )
