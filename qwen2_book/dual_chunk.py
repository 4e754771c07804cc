"""Dual Chunk Attention: no query meets a key from farther than `chunk` (arXiv:2402.17463).

The text is cut into pieces of `chunk - local` tokens. A key is rotated once, at its place within
its piece. A query is rotated three times: for keys of its own piece at its place, for keys of the
piece before at its place plus one piece (at most `chunk`), and for all earlier keys at `chunk`. So
no distance is larger than `chunk`, and every distance up to `local + 1` is the true one.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwen2_book.attention import GroupedQueryAttention
from qwen2_book.cache import KVCache
from qwen2_book.model import DecoderLayer, Masks, Qwen2
from qwen2_book.rope import rotate


def query_positions(
    positions: Int[Tensor, "batch seq"], chunk: int, local: int
) -> Int[Tensor, "3 batch seq"]:
    """Where a query stands for keys of its own piece, of the piece before, and of earlier ones."""
    piece = chunk - local
    place = positions % piece
    return torch.stack((place, (place + piece).clamp(max=chunk), torch.full_like(place, chunk)))


def relative_positions(length: int, chunk: int, local: int) -> Int[Tensor, "length length"]:
    """The distance at which each query (row) meets each key (column); -1 where it sees none."""
    _check(chunk, local)
    positions = torch.arange(length)
    piece = chunk - local
    back = (positions[:, None] // piece - positions // piece).clamp(0, 2)
    at = query_positions(positions[None], chunk, local)[:, 0]
    distance = at.T.gather(1, back) - positions % piece
    return distance.masked_fill(positions[:, None] < positions, -1)


def dual_chunk_attention(
    queries: Float[Tensor, "3 batch heads seq dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys dim"],
    query_at: Int[Tensor, "#batch seq"],
    key_at: Int[Tensor, "#batch keys"],
    piece: int,
    block: int = 128,
) -> Float[Tensor, "batch heads seq dim"]:
    """Causal attention of three rotated queries to keys of their own, the last, earlier pieces.

    `query_at` and `key_at` are positions in the text, -1 for padding (a padded query sees all keys,
    so that no row is empty). Each part is a softmax of its own over the columns it needs; the parts
    are merged by their log-sum-exp, so the result is one softmax over all keys. Work is that of
    plain attention; `block` queries at a time bound the memory.
    """
    rows = []
    for some in torch.arange(query_at.shape[1], device=key.device).split(block):
        at, other = query_at[:, some, None], key_at[:, None]
        back = at // piece - other // piece
        seen = (other >= 0) & (other <= at)
        kinds = (seen & (back == 0)) | (at < 0), seen & (back == 1), seen & (back > 1)
        parts = []
        for query, kind in zip(queries, kinds, strict=True):
            if len(used := kind.any(1).any(0).nonzero()):
                near = slice(int(used[0]), int(used[-1]) + 1)  # the columns of this kind
                part = query[:, :, some], key[:, :, near], value[:, :, near], kind[:, :, near]
                parts.append(_partial(*part))
        sums = torch.stack([log_sum for _, log_sum in parts])
        weights = (sums - sums.logsumexp(0)).exp()
        rows.append(sum(w * out for w, (out, _) in zip(weights, parts, strict=True)))
    return torch.cat(rows, 2).to(value.dtype)


def _partial(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over some of the keys, and the log of its softmax's sum (both float32).

    A query that sees none of these keys gets zeros, and minus infinity for the log.
    """
    groups = query.shape[1] // key.shape[1]
    seen = seen[:, None, None]
    grouped = query.unflatten(1, (-1, groups)).float() * query.shape[-1] ** -0.5
    scores = grouped @ key[:, :, None].float().transpose(-1, -2)
    log_sum = scores.masked_fill(~seen, -torch.inf).logsumexp(-1, keepdim=True)
    weights = (scores - log_sum).exp().masked_fill(~seen, 0.0)
    out = weights @ value[:, :, None].float()
    return out.flatten(1, 2), log_sum.flatten(1, 2)


class DualChunkQwen2(Qwen2):
    """A Qwen2 with Dual Chunk Attention in every layer; made by `with_dual_chunk`."""

    chunk: int
    local: int

    def hidden_states(
        self,
        token_ids: Int[Tensor, "batch seq"],
        positions: Int[Tensor, "#batch seq"],
        masks: Masks,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq hidden"]:
        """As in `Qwen2`, with three rotations of each query; `masks` follow from the positions."""
        x = self.model.embed_tokens(token_ids)
        places = query_positions(positions.clamp(min=0), self.chunk, self.local)
        turns = [tuple(t.to(x.dtype) for t in self.model.rotary(place)) for place in places]
        layers = cast("Sequence[DecoderLayer]", self.model.layers)
        for number, layer in enumerate(layers):
            key_at = positions if cache is None else cache.key_positions(number, x.shape[1])
            normed = layer.input_layernorm(x)
            x = x + self._attention(layer.self_attn, normed, turns, positions, key_at, cache)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.model.norm(x)

    def _attention(
        self,
        layer: GroupedQueryAttention,
        x: Tensor,
        turns: list[tuple[Tensor, Tensor]],
        query_at: Tensor,
        key_at: Tensor,
        cache: KVCache | None,
    ) -> Float[Tensor, "batch seq hidden"]:
        query, key, value = (
            project(x).unflatten(-1, (-1, layer.head_dim)).transpose(1, 2)
            for project in (layer.q_proj, layer.k_proj, layer.v_proj)
        )
        key = rotate(key, *turns[0])
        if cache is not None:
            key, value = cache.update(layer.layer, key, value)
        queries = torch.stack([rotate(query, *turn) for turn in turns])
        piece = self.chunk - self.local
        out = dual_chunk_attention(queries, key, value, query_at, key_at, piece)
        return layer.o_proj(out.transpose(1, 2).flatten(2))


def with_dual_chunk(model: Qwen2, chunk: int, local: int) -> DualChunkQwen2:
    """The same weights, not copied, with Dual Chunk Attention: pieces of `chunk - local` tokens.

    The published default is three quarters of the trained length for `chunk` and a sixteenth for
    `local`. A text within one piece is read as before. A KV cache works as with the model itself,
    but its keys are turned otherwise: one that the plain model has filled is of no use here. Raises
    ValueError for sizes without meaning, for an optimised model and for one whose sliding window is
    on.
    """
    _check(chunk, local)
    first = cast("DecoderLayer", model.model.layers[0])
    if not isinstance(first.self_attn, GroupedQueryAttention):
        raise ValueError(
            "with_dual_chunk: the model is optimised, its projections are fused. Take the model "
            "that `optimize` was given, or load without quantize."
        )
    if any(model.config.layer_windows):
        raise ValueError(
            "with_dual_chunk: the sliding window is on. Chunks reach far, windows do not: switch "
            "it off with model.with_window(None)."
        )
    twin = DualChunkQwen2.__new__(DualChunkQwen2)
    twin.__dict__ = model.__dict__ | {"chunk": chunk, "local": local}
    return twin


def _check(chunk: int, local: int) -> None:
    if not 0 <= local <= chunk - local or chunk < 1:
        raise ValueError(
            f"chunk {chunk}, local {local}: expected 0 <= local <= chunk / 2 and chunk >= 1."
        )
