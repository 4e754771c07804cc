"""Every head of a model over one prompt: a grid to choose from, its map, window, chunks, tokens."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import traitlets

from qwen2_book.heads import Survey
from qwen2_book.widgets.base import Figure, source
from qwen2_book.widgets.head_data import levels, pack, unpack

STORED = Path(__file__).with_name("head_browser.json")  # written by tools/browser_data.py
SCORES = ("first", "previous", "follows", "tokens")  # of a survey, in the order of the data
SHADES = ("kept", *SCORES, "loss")
LEVEL = 47  # of a map's cell that has all of a query's attention
AROUND = 3  # tokens shown before and after a key that the last token looks at


def stored() -> dict[str, Any]:
    """Three prompts of 40 tokens on the checkpoint that `source` names, and the losses."""
    data: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return data


def data_of(seen: Survey, pieces: Sequence[str], source: str) -> dict[str, Any]:
    """What the figure draws of a survey; `pieces` are the texts of all its tokens.

    Shares are in thousandths, maps as square roots in 0 .. 47. Of a long prompt only the tokens
    that are shown are kept: the first of each cell, and those around the last token's keys. Raises
    ValueError where there are more or fewer pieces than tokens.
    """
    if len(pieces) != seen.length:
        raise ValueError(
            f"{len(pieces)} pieces for a survey of {seen.length} tokens: expected one text a "
            "token, as tokenizer.pieces(ids) gives them for the same ids."
        )
    _, layers, heads, _ = seen.kept.shape
    kept = (seen.kept * 1000).round().int()
    scores = torch.stack([seen.scores[name] for name in SCORES]).mul(1000).round()
    edges = seen.edges.tolist()
    prompt: dict[str, Any] = {
        "name": "your prompt",
        "tokens": [pieces[edge] for edge in edges[:-1]],
        "edges": edges,
        "windows": seen.windows.tolist(),
        "kept": pack(kept.diff(dim=-1, prepend=torch.zeros_like(kept[..., :1])), "<i2"),
        "maps": pack(levels(seen.maps.flatten(0, 1), LEVEL), "u1"),
        "scores": pack(scores.nan_to_num(-1).int(), "<i4"),  # -1: no query counted
    }
    if seen.length > len(edges) - 1:  # else the map itself shows where the last token looks
        prompt["last_keys"] = pack(seen.last_keys, "<i4")
        prompt["last_shares"] = pack((seen.last_shares * 1000).round(), "<i2")
        prompt["near"] = {
            str(key): [
                "".join(pieces[max(0, key - AROUND) : key]),
                pieces[key],
                "".join(pieces[key + 1 : key + 1 + AROUND]),
            ]
            for key in sorted(set(seen.last_keys.flatten().tolist()))
        }
    whole = {"source": source, "layers": layers, "heads": heads, "kv_heads": seen.kv_heads}
    return whole | {"prompts": [prompt]}


def _scores(prompt: dict[str, Any], data: dict[str, Any]) -> np.ndarray:
    found = np.frombuffer(unpack(prompt["scores"]), "<i4")
    return found.reshape(len(SCORES), data["layers"], data["heads"])


class HeadBrowser(Figure):
    """All heads of a model, one of them with its whole map, on stored prompts or the reader's own.

    prompt: which of the prompts. shade: what the grid of heads is shaded by, one of `SHADES`.
    layer, head: the head that is shown large. window: keys that a query sees, its own included; of
    the windows surveyed, the longest that is not longer counts. first: 1 keeps the first token
    visible. chunk: cells of the map (tokens, in a short prompt) in a piece of Dual Chunk Attention,
    0 is off. query: the cell whose row shades the prompt's tokens.
    """

    MODULE: ClassVar[str] = "head_browser"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {"first": (0, 1)}

    _esm = source("head_browser")
    data = traitlets.Dict().tag(sync=True)
    prompt = traitlets.Int(0).tag(sync=True)
    shade = traitlets.Enum(list(SHADES), "kept").tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    window = traitlets.Int(8).tag(sync=True)
    first = traitlets.Int(0).tag(sync=True)
    chunk = traitlets.Int(0).tag(sync=True)
    query = traitlets.Int(0).tag(sync=True)

    def __init__(self, data: dict[str, Any] | None = None, **state: Any) -> None:
        data = data or stored()
        longest = max(prompt["edges"][-1] for prompt in data["prompts"])
        cells = max(len(prompt["tokens"]) for prompt in data["prompts"])
        bounds = {
            "prompt": (0, len(data["prompts"]) - 1),
            "layer": (0, data["layers"] - 1),
            "head": (0, data["heads"] - 1),
            "window": (1, longest),
            "chunk": (0, cells),
            "query": (0, cells - 1),
        }
        if state.get("shade") == "loss" and "losses" not in data:
            raise ValueError('shade "loss": these data hold no losses.')
        copying = _scores(data["prompts"][0], data)[SCORES.index("follows")]
        layer, head = divmod(int(copying.argmax()), data["heads"])  # the best at it, at first
        start = {"layer": layer, "head": head, "window": min(8, longest), "query": cells - 1}
        super().__init__(own_limits=bounds, data=data, **(start | state))

    @classmethod
    def of(cls, seen: Survey, pieces: Sequence[str], source: str, **state: Any) -> "HeadBrowser":
        """The figure for a prompt of the reader's own, of any length that was surveyed.

        seen: `survey(model, ids)`; pieces: the texts of its tokens; source: the model's name.
        """
        return cls(data_of(seen, pieces, source), **state)

    def _numbers(self, name: str, dtype: str, *shape: int) -> np.ndarray:
        found = np.frombuffer(unpack(self.data["prompts"][self.prompt][name]), dtype)
        return found.reshape(*shape)

    def measured(self) -> int:
        """The window that the numbers are of: the longest of those surveyed up to `window`."""
        return max(w for w in self.data["prompts"][self.prompt]["windows"] if w <= self.window)

    def _thousandths(self) -> np.ndarray:
        windows = self.data["prompts"][self.prompt]["windows"]
        shape = (2, self.data["layers"], self.data["heads"], len(windows))
        curves = self._numbers("kept", "<i2", *shape)[self.first].cumsum(-1)
        return curves[..., windows.index(self.measured())]

    def all_kept(self) -> np.ndarray:
        """The share of attention that the window keeps, for every head: (layers, heads)."""
        return self._thousandths() / 1000

    def kept(self) -> float:
        """The same for the chosen head."""
        return float(self.all_kept()[self.layer, self.head])

    def fitting(self) -> int:
        """How many heads keep more than 90%."""
        return int((self._thousandths() > 900).sum())

    def score(self, name: str) -> float:
        """One of `SCORES` of the chosen head, rounded to thousandths; nan where none counted."""
        found = _scores(self.data["prompts"][self.prompt], self.data)
        value = int(found[SCORES.index(name), self.layer, self.head])
        return value / 1000 if value >= 0 else math.nan

    def map(self) -> np.ndarray:
        """The chosen head's map, (cells, cells), off by 0.02 at most: it is stored in levels."""
        cells = len(self.data["prompts"][self.prompt]["tokens"])
        heads = self.data["layers"] * self.data["heads"]
        triangles = self._numbers("maps", "u1", heads, cells * (cells + 1) // 2)
        square = np.zeros((cells, cells))
        square[np.tril_indices(cells)] = triangles[self.layer * self.data["heads"] + self.head]
        return (square / LEVEL) ** 2

    def weight(self, key: int) -> float:
        """About the share that the chosen query gives to a key, or cell to cell."""
        square = self.map()
        return float(square[min(self.query, len(square) - 1), key])

    def zones(self) -> tuple[float, float, float]:
        """The shares in the query's own chunk, the chunk before, and earlier ones, from the map."""
        square = self.map()
        at = np.arange(len(square)) // (self.chunk or len(square))
        back = np.minimum(2, at[:, None] - at)
        queries = np.diff(self.data["prompts"][self.prompt]["edges"]) * (square.sum(1) > 0)
        rows = square / np.maximum(square.sum(1, keepdims=True), 1e-9) * queries[:, None]
        same, before, earlier = (float(rows[back == k].sum() / queries.sum()) for k in range(3))
        return same, before, earlier

    def description(self) -> str:
        data, prompt = self.data, self.data["prompts"][self.prompt]
        share = math.floor(1000 * self.kept() + 0.5) / 10
        return (
            f"A grid of {data['layers'] * data['heads']} heads, {data['layers']} layers from left "
            f"to right, in groups of {data['heads'] // data['kv_heads']} that share a key-value "
            f"head; a window of {self.measured():,} keeps over 90% of the attention of "
            f"{self.fitting()}. Beside it the attention map of layer {self.layer}, head "
            f"{self.head}, on a prompt of {prompt['edges'][-1]:,} tokens: the window keeps {share}%"
            " of it. Below, the prompt's tokens, shaded by what one query gives to each."
        )
