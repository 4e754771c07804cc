"""What the heads of a model do with a text: scores, windows and coarse maps of all of them at once.

A survey goes through the attention by blocks of rows and keeps sums, so the full square of weights
is never held: a prompt of 32,768 tokens needs the memory of the model's own run and one block.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwen2_book.attention import GroupedQueryAttention
from qwen2_book.model import Qwen2
from qwen2_book.tokenizer import Tokenizer
from qwen2_book.trace import row_blocks

BINS = 48  # cells of a map's side; a prompt of so many tokens is kept exactly
EXACT = 128  # windows up to here are all measured, longer ones in steps
SCORES = ("first", "first_valued", "previous", "same", "follows", "tokens")


@dataclass(frozen=True)
class Survey:
    """What each head did on one prompt, averaged over the queries that were looked at.

    scores: name -> (layers, heads). `first`, `previous`: the share of attention on the first token
    and on the token before; `same`, `follows`: on earlier tokens that are the same as the query,
    and on those that came right after them, over the queries that have such (nan where none has);
    `tokens`: the exponential of the entropy, the number of tokens that a row really uses;
    `first_valued`: the share of the first token if each weight counts by the length of its value
    vector. kept: the share inside each of `windows`, without and with the first token always
    visible. maps: the mean share that the queries of one bin give to the keys of another; `edges`
    are the bins' first positions, and the prompt's length. last_keys, last_shares: where the last
    token looks most. kv_heads: how many key-value heads the heads of a layer share.
    """

    length: int
    kv_heads: int
    windows: Int[Tensor, "windows"]
    edges: Int[Tensor, "edges"]
    scores: dict[str, Float[Tensor, "layers heads"]]
    kept: Float[Tensor, "sinks layers heads windows"]
    maps: Float[Tensor, "layers heads bins bins"]
    last_keys: Int[Tensor, "layers heads top"]
    last_shares: Float[Tensor, "layers heads top"]

    def fitting(self, window: int, first: bool = False, share: float = 0.9) -> int:
        """How many heads keep more than `share` inside a window, with the first token or alone."""
        kept = self.kept[int(first), :, :, self.windows.tolist().index(window)]
        return int((kept > share).sum())


def windows_up_to(length: int) -> list[int]:
    """The windows of a survey: every one up to 128, then eight in each doubling, and the length."""
    found = set(range(1, min(length, EXACT) + 1)) | {length}
    step = 0
    while (window := round(EXACT * 2 ** (step / 8))) < length:
        found.add(window)
        step += 1
    return sorted(found)


@torch.no_grad()
def survey(
    model: Qwen2, ids: Int[Tensor, "seq"] | Sequence[int], every: int = 1, top: int = 8
) -> Survey:
    """Run the model once over a prompt and sum up what every head of every layer looks at.

    every: look at each `every`-th query only, the last one included, which a long prompt can spare.
    Raises ValueError for prompts of fewer than two tokens, for `every` below 1, and for models that
    are optimised or have dual chunk attention.
    """
    tokens = torch.as_tensor(ids, dtype=torch.long).flatten()
    length, layers = len(tokens), model.config.num_hidden_layers
    if length < 2 or every < 1:
        raise ValueError(f"{length} tokens, every {every}: expected at least 2 tokens and 1.")
    rows = list(range((length - 1) % every, length, every))
    bins = min(BINS, length)
    edges = torch.arange(bins + 1) * length // bins
    windows = torch.tensor(windows_up_to(length))
    found: dict[int, Sums] = {}

    def watch(module, args):
        values = module.v_proj(args[0])[0].float().unflatten(-1, (-1, module.head_dim))
        heads = range(model.config.num_attention_heads)
        sums = Sums(tokens, windows, edges, top, values.norm(dim=-1).T, len(heads))
        for block, attention in row_blocks(module, args, heads, rows):
            sums.add(torch.tensor(block), attention[0])
        found[module.layer] = sums

    hooks = [part.register_forward_pre_hook(watch) for part in attention_layers(model)]
    try:
        model(tokens[None].to(model.device), last_only=True)
    finally:
        for hook in hooks:
            hook.remove()
    seen = [found[layer] for layer in range(layers)]
    return Survey(
        length, model.config.num_key_value_heads, windows, edges,
        {name: torch.stack([sums.scores()[name] for sums in seen]) for name in SCORES},
        torch.stack([sums.kept / len(rows) for sums in seen], 1),
        torch.stack([sums.maps / sums.per_bin.clamp(min=1)[:, None] for sums in seen]),
        torch.stack([sums.last.indices for sums in seen]),
        torch.stack([sums.last.values for sums in seen]),
    )  # fmt: skip


class Sums:
    """The sums over a layer's rows, block by block."""

    def __init__(self, tokens, windows, edges, top: int, value_norms: Tensor, heads: int) -> None:
        self.tokens, self.windows, self.edges, self.top = tokens, windows, edges, top
        self.value_norms = value_norms.repeat_interleave(heads // len(value_norms), 0).cpu()
        self.kept = torch.zeros(2, heads, len(windows))
        self.maps = torch.zeros(heads, len(edges) - 1, len(edges) - 1)
        self.per_bin = torch.zeros(len(edges) - 1)
        self.sums = {name: torch.zeros(heads) for name in SCORES}
        self.counts = dict.fromkeys(SCORES, 0)

    def add(self, rows: Int[Tensor, "rows"], attention: Float[Tensor, "heads rows keys"]) -> None:
        attention = attention.cpu()
        up_to = torch.nn.functional.pad(attention.cumsum(-1), (1, 0))  # the share on keys < j
        before = (rows[:, None] + 1 - self.windows).clamp(min=0)  # the first key in each window
        outside = up_to.gather(-1, before.expand(len(attention), -1, -1))
        first = attention[..., :1] * (before > 0)
        self.kept[0] += (1 - outside).sum(1)
        self.kept[1] += (1 - outside + first).sum(1)
        in_bins = up_to[..., self.edges].diff(dim=-1)
        places = torch.bucketize(rows, self.edges, right=True) - 1
        self.maps.index_add_(1, places, in_bins)
        self.per_bin += torch.bincount(places, minlength=len(self.per_bin))
        self._score(rows, attention)
        if rows[-1] == len(self.tokens) - 1:
            self.last = attention[:, -1].topk(min(self.top, attention.shape[-1]))

    def _score(self, rows: Tensor, attention: Tensor) -> None:
        before = torch.arange(len(self.tokens)) < rows[:, None]
        same = (self.tokens == self.tokens[rows, None]) & before
        follows = torch.nn.functional.pad(same[:, :-1], (1, 0)) & before
        first, norms = attention[..., 0], self.value_norms
        valued = first * norms[:, :1] / torch.einsum("hrk,hk->hr", attention, norms)
        previous = attention.gather(
            -1, (rows - 1).clamp(min=0)[None, :, None].expand(len(first), -1, 1)
        )
        self._sum("first", first, rows > 0)
        self._sum("first_valued", valued, rows > 0)
        self._sum("previous", previous[..., 0], rows > 0)
        self._sum("same", torch.einsum("hrk,rk->hr", attention, same.float()), same.any(-1))
        self._sum(
            "follows", torch.einsum("hrk,rk->hr", attention, follows.float()), follows.any(-1)
        )
        self._sum("tokens", torch.special.entr(attention).sum(-1).exp(), rows >= 0)

    def _sum(self, name: str, values: Tensor, counted: Tensor) -> None:
        self.sums[name] += values[:, counted].sum(-1)
        self.counts[name] += int(counted.sum())

    def scores(self) -> dict[str, Float[Tensor, "heads"]]:
        """The means; nan where no row counted."""
        return {name: self.sums[name] / (self.counts[name] or torch.nan) for name in SCORES}


def attention_layers(model: Qwen2) -> list[GroupedQueryAttention]:
    """The attention layers, in order; ValueError where they are not the plain ones."""
    if type(model) is not Qwen2:
        raise ValueError(
            f"found a {type(model).__name__}, expected a Qwen2 as `load` gives it: take the model "
            "before `optimize` or `with_dual_chunk`."
        )
    return [cast("GroupedQueryAttention", layer.self_attn) for layer in model.model.layers]


def random_words(tokenizer: Tokenizer, count: int, seed: int) -> list[int]:
    """Common English words of four to eight letters, a space before each, no two alike; as ids.

    Drawn from the first 20,000 ids, which the tokenizer learned first. Raises ValueError where
    there are too few.
    """
    pieces = tokenizer.pieces(list(range(min(20_000, len(tokenizer)))))
    words = [
        number
        for number, piece in enumerate(pieces)
        if piece[:1] == " " and piece[1:].isascii() and piece[1:].isalpha() and piece.islower()
        and 4 <= len(piece) - 1 <= 8
    ]  # fmt: skip
    if len(words) < count:
        raise ValueError(f"{len(words)} words of this kind: {count} were asked for.")
    order = torch.randperm(len(words), generator=torch.Generator().manual_seed(seed))
    return [words[place] for place in order[:count].tolist()]


@contextmanager
def without_heads(model: Qwen2, heads: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Silence some (layer, head) pairs while the model runs: what they add to the stream is 0.

    Raises ValueError for heads that do not exist, and for models as in `survey`.
    """
    config, parts = model.config, attention_layers(model)
    layers, count, dim = config.num_hidden_layers, config.num_attention_heads, config.head_dim
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        if not (0 <= layer < layers and 0 <= head < count):
            raise ValueError(
                f"head ({layer}, {head}): expected 0 to {layers - 1}, 0 to {count - 1}."
            )
        by_layer.setdefault(layer, []).append(head)

    def silence(places: list[int]):
        def hook(module, args):
            mixed = args[0].unflatten(-1, (count, dim)).clone()
            mixed[..., places, :] = 0
            return (mixed.flatten(-2),)

        return hook

    hooks = []
    for layer, places in by_layer.items():
        hooks.append(parts[layer].o_proj.register_forward_pre_hook(silence(places)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
