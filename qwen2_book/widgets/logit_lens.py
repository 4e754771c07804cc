"""The logit lens: what a model would say next, if it stopped after each of its blocks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import traitlets

from qwen2_book.tokenizer import Tokenizer
from qwen2_book.trace import Trace
from qwen2_book.widgets.base import Figure, source

STORED = Path(__file__).with_name("logit_lens.json")  # written by tools/lens_data.py
LONGEST = 16  # tokens of a prompt: columns of the grid
SHOWN = 5  # likeliest tokens of a cell


def prompt_data(name: str, seen: Trace, tokenizer: Tokenizer) -> dict[str, Any]:
    """One prompt of the figure, from `trace(model, ids, lens=5)` over all rows.

    `top[state][position]` holds five pairs of text and probability in thousandths. Raises
    ValueError for prompts longer than `LONGEST` and for traces without such a lens.
    """
    ids, lens = seen.token_ids[0].tolist(), seen.lens_ids
    if lens is None or len(ids) > LONGEST or lens.shape[2:] != (len(ids), SHOWN):
        raise ValueError(
            f"{len(ids)} tokens, lens {None if lens is None else tuple(lens.shape)}: expected at "
            f"most {LONGEST} tokens, as trace(model, ids, lens={SHOWN}) sees them."
        )
    assert seen.lens_probabilities is not None  # they come together
    shares = (seen.lens_probabilities[:, 0] * 1000).round().int().tolist()
    top = [
        [
            [[text, share] for text, share in zip(tokenizer.pieces(five), shown, strict=True)]
            for five, shown in zip(row, row_shares, strict=True)
        ]
        for row, row_shares in zip(lens[:, 0].tolist(), shares, strict=True)
    ]
    return {"name": name, "tokens": tokenizer.pieces(ids), "top": top}


def stored() -> dict[str, Any]:
    """The stored prompts, one English and one Chinese, on the checkpoint that `source` names."""
    data: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return data


class LogitLens(Figure):
    """Block by position: the token that a model would say if it stopped there.

    block: how many blocks are done; 0 is the embedding itself. position: the token after which
    the next one is guessed. prompt: which of the prompts.
    """

    MODULE: ClassVar[str] = "logit_lens"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {}

    _esm = source("logit_lens")
    data = traitlets.Dict().tag(sync=True)
    block = traitlets.Int(22).tag(sync=True)
    position = traitlets.Int(4).tag(sync=True)
    prompt = traitlets.Int(0).tag(sync=True)

    def __init__(self, data: dict[str, Any] | None = None, **state: Any) -> None:
        data = data or stored()
        prompts = data["prompts"]
        ends = {
            "block": len(prompts[0]["top"]) - 1,
            "position": max(len(prompt["tokens"]) for prompt in prompts) - 1,
            "prompt": len(prompts) - 1,
        }
        bounds = {key: (0, end) for key, end in ends.items()}
        first = {"position": len(prompts[0]["tokens"]) - 1, "block": min(22, ends["block"])}
        super().__init__(own_limits=bounds, data=data, **(first | state))

    @classmethod
    def of(cls, seen: Trace, tokenizer: Tokenizer, source: str, **state: Any) -> "LogitLens":
        """The figure for a prompt of the reader's own: `trace(model, ids, lens=5)`."""
        return cls({"source": source, "prompts": [prompt_data("yours", seen, tokenizer)]}, **state)

    def five(self) -> Sequence[Sequence[Any]]:
        """The five likeliest tokens of the chosen cell, each with its thousandths."""
        prompt = self.data["prompts"][self.prompt]
        found: Sequence[Sequence[Any]] = prompt["top"][self.block][self.column()]
        return found

    def column(self) -> int:
        """The chosen position, inside the chosen prompt."""
        return min(self.position, len(self.data["prompts"][self.prompt]["tokens"]) - 1)

    def settled(self) -> int:
        """How many blocks are done when the final answer stands first to stay."""
        firsts = [row[self.column()][0][0] for row in self.data["prompts"][self.prompt]["top"]]
        other = [block for block, text in enumerate(firsts) if text != firsts[-1]]
        return other[-1] + 1 if other else 0

    def description(self) -> str:
        prompt = self.data["prompts"][self.prompt]
        text, share = self.five()[0]
        size = f"{len(prompt['top'])} states by {len(prompt['tokens'])} positions"
        return (
            f"A grid of {size}, each cell with the token that the model would say if it stopped "
            f"there; chosen are {self.block} blocks after “{prompt['tokens'][self.column()]}”, "
            f"where the likeliest is “{text}” with {share / 10}%."
        )
