"""What a forward pass saw: attention rows, residual norms, the logit lens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwen2_book.model import Qwen2
from qwen2_book.norm import RMSNorm
from qwen2_book.window import visible

ROW_BLOCK = 128  # rows whose scores are held at once, fewer where
BLOCK_NUMBERS = 2**24  # they would be more than so many numbers


@dataclass
class Trace:
    """What `trace` was asked for.

    attention: layer -> (batch, heads, rows, keys), float32, each row summing to 1;
    residual_norms: (layers + 1, batch, seq), the length of the residual stream's vector after the
    embedding and after each layer; logits: (batch, 1, vocab) after the last token;
    lens_ids, lens_probabilities: (layers + 1, batch, rows, lens), what the model would say if it
    stopped after the embedding or after that layer.
    """

    token_ids: Int[Tensor, "batch seq"]
    rows: list[int]
    heads: list[int]
    logits: Float[Tensor, "batch 1 vocab"]
    residual_norms: Float[Tensor, "states batch seq"]
    attention: dict[int, Float[Tensor, "batch heads rows keys"]] = field(default_factory=dict)
    lens_ids: Int[Tensor, "states batch rows lens"] | None = None
    lens_probabilities: Float[Tensor, "states batch rows lens"] | None = None

    def mass_in_window(
        self, layer: int, window: int, sink_tokens: int = 0
    ) -> Float[Tensor, "batch heads rows"]:
        """The share of each row's attention that a window would keep, for unpadded prompts."""
        return mass_in_window(self.attention[layer], self.rows, window, sink_tokens)


def mass_in_window(
    attention: Float[Tensor, "*batch rows keys"],
    rows: Sequence[int],
    window: int,
    sink_tokens: int = 0,
) -> Float[Tensor, "*batch rows"]:
    """The attention on keys with 0 <= i - j < window or j < sink_tokens; rows holds each i."""
    keys = torch.arange(attention.shape[-1], device=attention.device)[None]
    queries = torch.tensor([list(rows)], device=attention.device)
    return (attention * visible(queries, keys, window, sink_tokens)[0]).sum(-1)


@torch.no_grad()
def trace(
    model: Qwen2,
    token_ids: Int[Tensor, "batch seq"] | Sequence[int],
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    rows: slice | Sequence[int] | None = None,
    lens: int = 0,
) -> Trace:
    """Run the model once and keep what is asked for, nothing else.

    layers, heads: whose attention (None: of all); rows: of which queries (None: of all);
    lens: how many of the likeliest tokens to read off the residual stream after each layer.
    Raises ValueError for layers, heads or rows that do not exist, and for dual chunk attention.
    """
    if not isinstance(token_ids, Tensor):
        token_ids = torch.tensor([list(token_ids)], dtype=torch.long)
    token_ids = token_ids.to(model.device)
    config = model.config
    layers = _chosen("layer", layers, config.num_hidden_layers)
    heads = _chosen("head", heads, config.num_attention_heads)
    rows = _chosen("row", rows, token_ids.shape[1])
    attention: dict[int, Tensor] = {}
    states: list[Tensor] = []
    lenses: list[tuple[Tensor, Tensor]] = []

    def watch_attention(module, args):
        attention[module.layer] = _rows(module, args, heads, rows)

    def watch_state(module, args, output):
        states.append(output.float().norm(dim=-1))
        if lens:
            logits = model.lm_head(model.model.norm(output[:, rows]))[..., : model.vocab_limit]
            probabilities = logits.float().softmax(-1)
            lenses.append(tuple(probabilities.topk(lens)))

    parts = [model.model.embed_tokens, *model.model.layers]
    hooks = [part.register_forward_hook(watch_state) for part in parts]
    for layer in layers:
        part = model.get_submodule(f"model.layers.{layer}.self_attn")
        hooks.append(part.register_forward_pre_hook(watch_attention))
    try:
        logits = model(token_ids, last_only=True)
    finally:
        for hook in hooks:
            hook.remove()
    if unseen := set(layers) - set(attention):
        raise ValueError(
            f"layers {sorted(unseen)} were run without their attention module, as dual chunk "
            "attention does: trace the model that it was made from."
        )
    seen = Trace(token_ids, rows, heads, logits, torch.stack(states), attention)
    if lens:
        seen.lens_probabilities = torch.stack([probabilities for probabilities, _ in lenses])
        seen.lens_ids = torch.stack([ids for _, ids in lenses])
    return seen


@torch.no_grad()
def residual_states(
    model: Qwen2, token_ids: Int[Tensor, "batch seq"] | Sequence[int]
) -> Float[Tensor, "states batch seq hidden"]:
    """The residual stream after the embedding and after every single addition, float32.

    Two additions a block, attention's and the feed-forward layer's: 2 layers + 1 states. What was
    added is the difference of neighbours. The hidden vectors are kept whole: use short prompts.
    """
    if not isinstance(token_ids, Tensor):
        token_ids = torch.tensor([list(token_ids)], dtype=torch.long)
    states: list[Tensor] = []

    def watch(module, args):
        states.append(args[0].float().clone())

    norms = [module for module in model.modules() if isinstance(module, RMSNorm)]
    hooks = [norm.register_forward_pre_hook(watch) for norm in norms]  # all read the stream
    try:
        model(token_ids.to(model.device), last_only=True)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(states)


def _rows(module, args: tuple, heads: list[int], rows: list[int]) -> Tensor:
    """Attention (batch, heads, rows, keys) of one layer, from the input that it is about to get."""
    return torch.cat([block for _, block in row_blocks(module, args, heads, rows)], 2)


def row_blocks(
    module: Any, args: tuple, heads: Sequence[int], rows: Sequence[int]
) -> Iterator[tuple[list[int], Float[Tensor, "batch heads rows keys"]]]:
    """The attention that a layer is about to compute, a few rows at a time: (rows, attention).

    module: an attention layer, plain or optimised; args: what its forward pre-hook gets; float32.
    A block has at most `ROW_BLOCK` rows and about `BLOCK_NUMBERS` weights, so a long prompt needs
    no more memory than a short one.
    """
    x, cos, sin, mask = args[:4]
    query, key = module.query_key(x, cos, sin)
    groups = query.shape[1] // key.shape[1]
    key = key[:, [head // groups for head in heads]].float()
    fitting = BLOCK_NUMBERS // max(1, key.shape[0] * key.shape[1] * key.shape[2])
    step = min(ROW_BLOCK, max(1, fitting))
    for start in range(0, len(rows), step):
        block = list(rows[start : start + step])
        scores = query[:, heads][:, :, block].float() @ key.mT * module.head_dim**-0.5
        if isinstance(mask, Tensor):
            seen = mask[:, :, block]
        else:
            positions = torch.arange(x.shape[1], device=x.device)[None]
            seen = visible(positions[:, block], positions, *(mask or ()))[:, None]
        yield block, scores.masked_fill_(~seen, -torch.inf).softmax(-1)


def _chosen(what: str, wanted: slice | Sequence[int] | None, count: int) -> list[int]:
    if wanted is None or isinstance(wanted, slice):
        return list(range(count))[wanted if wanted is not None else slice(None)]
    chosen = [index + count if index < 0 else index for index in wanted]
    if bad := [index for index in chosen if not 0 <= index < count]:
        raise ValueError(f"{what}s {bad}: expected 0 to {count - 1}.")
    return chosen
