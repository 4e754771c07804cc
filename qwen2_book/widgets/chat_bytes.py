"""What the model reads of a conversation: the template's bytes, and the tokens they become."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import traitlets

from qwen2_book.widgets.base import HERE, Figure, source

STORED = HERE / "chat_bytes.json"
CONTROL = {"<|im_start|>": 151644, "<|im_end|>": 151645}
LONGEST = 40  # characters of typed text


@lru_cache(maxsize=1)
def stored() -> dict[str, Any]:
    """The prepared texts and the tokens of every piece that lies between two control tokens."""
    return json.loads(STORED.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Piece:
    """One token: its id (None where the text was typed), its text, and what it belongs to."""

    id: int | None
    text: str
    kind: str  # control, role, content, end (a line break of the template), fused
    new: bool = False  # not in the right layout


class ChatBytes(Figure):
    """A conversation as Qwen2's template writes it, token by token, in two layouts.

    system: Qwen2's default, Qwen2.5's default, a role of our own, or none. user: one of the
    prepared texts; `typed`, where not empty, stands in its place and has no ids. turns: questions
    asked. prompt: 1 opens the assistant's answer. form: the right layout, or the popular one with
    a line break before `<|im_end|>`. token: the one that is looked at.
    """

    MODULE: ClassVar[str] = "chat_bytes"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {
        "system": (0, 3),
        "user": (0, 4),
        "turns": (1, 2),
        "prompt": (0, 1),
        "token": (0, 127),
    }

    _esm = source("chat_bytes")
    data = traitlets.Dict().tag(sync=True)
    system = traitlets.Int(0).tag(sync=True)
    user = traitlets.Int(0).tag(sync=True)
    typed = traitlets.Unicode("").tag(sync=True)
    turns = traitlets.Int(1).tag(sync=True)
    prompt = traitlets.Int(1).tag(sync=True)
    form = traitlets.Enum(["right", "wrong"], "right").tag(sync=True)
    token = traitlets.Int(8).tag(sync=True)

    def __init__(self, **state: Any) -> None:
        super().__init__(**{"data": stored()} | state)

    def messages(self) -> list[tuple[str, str]]:
        """Role and text of each message."""
        texts = self.data["texts"]
        found = [("system", texts["system"][self.system])] if self.system < 3 else []
        found.append(("user", self.typed[:LONGEST] or texts["user"][self.user]))
        if self.turns == 2:
            found += [("assistant", texts["answer"]), ("user", texts["second"])]
        return found

    def pieces(self) -> list[Piece]:
        """The tokens, from the stored table; typed text is one piece a character."""
        found = []
        for role, text in self.messages():
            found.append(Piece(CONTROL["<|im_start|>"], "<|im_start|>", "control"))
            right = self._segment(role, text, "")
            wrong = self._segment(role, text, "\n")
            if self.form == "right":
                found += right
            else:
                found += [
                    Piece(p.id, p.text, p.kind, new=right[i : i + 1] != [p])
                    for i, p in enumerate(wrong)
                ]
            found.append(Piece(CONTROL["<|im_end|>"], "<|im_end|>", "control"))
            found.append(Piece(198, "\n", "end"))
        if self.prompt:
            found.append(Piece(CONTROL["<|im_start|>"], "<|im_start|>", "control"))
            found += self._segment("assistant", "", "")
        return found

    def ids(self) -> list[int | None]:
        return [piece.id for piece in self.pieces()]

    def text(self) -> str:
        """What the tokens spell: the template's output."""
        return "".join(piece.text for piece in self.pieces())

    def _segment(self, role: str, text: str, end: str) -> list[Piece]:
        head = f"{role}\n"
        whole = f"{head}{text}{end}"
        if whole in self.data["segments"]:
            tokens = self.data["segments"][whole]
        else:  # typed: the ids of the head are known, those of the text are not
            tokens = [*self.data["segments"][head], *([None, 1] for _ in text + end)]
        found, at = [], 0
        borders = {len(head), len(head) + len(text)} - {len(whole)}
        for token_id, length in tokens:
            stop = at + length
            crosses = any(at < border < stop for border in borders)
            kind = "role" if stop <= len(head) else "content"
            kind = "end" if at >= len(head) + len(text) else kind
            kind = "fused" if crosses else kind
            found.append(Piece(token_id, whole[at:stop], kind))
            at = stop
        return found

    def description(self) -> str:
        pieces = self.pieces()
        control = sum(piece.kind == "control" for piece in pieces)
        fused = sum(piece.kind == "fused" for piece in pieces)
        return (
            f"A conversation of {len(self.messages())} messages in the {self.form} layout, as "
            f"{len(pieces)} boxes, one a token, with its id: {control} control tokens, {fused} "
            "that join a border of the template with a message."
        )
