"""Which tokens of a conversation are learned, and what the mean loss is a mean of."""

import json
from functools import lru_cache
from typing import Any, ClassVar

import traitlets

from qwen2_book.widgets.base import HERE, Figure, source

STORED = HERE / "loss_mask.json"
ROLES = ("system", "user", "assistant")  # a tool answers in a turn of the user
KINDS = ("control", "header", "content", "line end")


@lru_cache(maxsize=1)
def stored() -> dict[str, Any]:
    """Conversations as [id, text, role, kind, learned, loss in thousandths of a nat] a token."""
    return json.loads(STORED.read_text(encoding="utf-8"))


class LossMask(Figure):
    """A conversation token by token: who says it, whether it is learned, and its loss.

    preset: which conversation. everything: 1 learns the prompt, too. newline: 1 learns the line end
    after each answer's `<|im_end|>`. late: 1 plants a bug, each token's mark on the token after it.
    cut: how many tokens fit; what is beyond is cut off. token: the one that is looked at.
    """

    MODULE: ClassVar[str] = "loss_mask"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {
        "preset": (0, 4),
        "everything": (0, 1),
        "newline": (0, 1),
        "late": (0, 1),
        "cut": (16, 80),
        "token": (0, 79),
    }

    _esm = source("loss_mask")
    data = traitlets.Dict().tag(sync=True)
    preset = traitlets.Int(1).tag(sync=True)
    everything = traitlets.Int(0).tag(sync=True)
    newline = traitlets.Int(0).tag(sync=True)
    late = traitlets.Int(0).tag(sync=True)
    cut = traitlets.Int(80).tag(sync=True)
    token = traitlets.Int(23).tag(sync=True)

    def __init__(self, **state: Any) -> None:
        super().__init__(**{"data": stored()} | state)

    @property
    def tokens(self) -> list[list[Any]]:
        """All tokens of the conversation, those that are cut off included."""
        return self.data["presets"][self.preset]["tokens"]

    def answers(self) -> list[bool]:
        """The right choice: each answer with its `<|im_end|>`."""
        return [bool(token[4]) for token in self.tokens]

    def learned(self) -> list[bool]:
        """Which tokens are learned in this state; the first never is, nothing comes before it."""
        right = self.answers()
        if self.everything:
            found = [True] * len(right)
        elif self.newline:
            found = [own or before for own, before in zip(right, [False, *right[:-1]], strict=True)]
        else:
            found = right
        if self.late:
            found = [False, *found[:-1]]
        return [own and 0 < at < self.cut for at, own in enumerate(found)]

    def mean(self, which: list[bool]) -> float:
        """Mean loss over some tokens, in nats; NaN over none."""
        losses = [token[5] / 1000 for token, own in zip(self.tokens, which, strict=True) if own]
        return sum(losses) / len(losses) if losses else float("nan")

    def ends(self) -> tuple[int, int]:
        """How many answers are learned to their `<|im_end|>`, of how many."""
        right, now = self.answers(), self.learned()
        last = [at for at in range(len(right)) if right[at] and not [*right, False][at + 1]]
        return sum(now[at] for at in last), len(last)

    def description(self) -> str:
        now, (done, answers) = self.learned(), self.ends()
        return (
            f"A conversation as {len(now)} boxes, one a token, a row for each turn. {sum(now)} of "
            "them, filled and with a bar below, are learned: "
            f"{done} of {answers} answers up to their end token. System, user and headers are not."
            if not self.everything
            else f"A conversation as {len(now)} boxes, one a token; {sum(now)} are learned."
        )
