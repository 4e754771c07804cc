"""Which keys a query may see: absolute positions in, a mask out; and attention that uses it.

`visible` is the rule. `banded_attention` and `flex_attention` compute the same as attention with
its mask, without touching what the mask hides.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention import flex_attention as flex


class Band(NamedTuple):
    """A window and nothing else: a whole text, without padding, from its first token on."""

    window: int
    sink_tokens: int = 0


Mask = Bool[Tensor, "#batch 1 seq keys"] | Band | None  # True: is seen; None: plain causal


def visible(
    query_positions: Int[Tensor, "batch query"],
    key_positions: Int[Tensor, "batch key"],
    window: int | None = None,
    sink_tokens: int = 0,
) -> Bool[Tensor, "batch query key"]:
    """True where the query may see the key: 0 <= i - j < window, or j is one of the sinks.

    A window of W holds W keys, the query's own position included. Position -1 marks padding and
    empty cache slots: no real query sees them. A padding query sees everything, which keeps its
    softmax finite; nobody sees it in turn.
    """
    query, key = query_positions[:, :, None], key_positions[:, None, :]
    seen = (key <= query) & (key >= 0)
    if window is not None:
        seen &= (query - key < window) | (key < sink_tokens)
    return seen | (query < 0)


def receptive_field(layer_windows: tuple[int | None, ...], length: int) -> int:
    """How many tokens back the last of `length` positions can be influenced, itself not counted.

    A layer with window W carries information W - 1 tokens; one full layer reaches everything.
    """
    reach = sum(length - 1 if window is None else window - 1 for window in layer_windows)
    return min(reach, length - 1)


def count_pairs(length: int, window: int | None = None, sink_tokens: int = 0) -> int:
    """How many query-key pairs `length` causal queries see: the cost of attention, exactly."""
    if window is None or window >= length:
        return length * (length + 1) // 2
    inside = window * (window + 1) // 2 + (length - window) * window
    beyond = [length - window - sink for sink in range(min(sink_tokens, length - window))]
    return inside + sum(beyond)


def positions_from_mask(
    attention_mask: Bool[Tensor, "batch seq"], offset: Int[Tensor, "batch"]
) -> Int[Tensor, "batch seq"]:
    """Positions of the real tokens, counted on from `offset`; -1 for padding.

    Padding may only stand before a row's first real token: `offset` above 0 means that there were
    some already. Raises ValueError for right padding and for holes.
    """
    mask = attention_mask.long()
    started = (mask.cumsum(1) > 0) | (offset[:, None] > 0)
    if bool((started & (mask == 0)).any()):
        row = int((started & (mask == 0)).any(1).nonzero()[0])
        raise ValueError(
            f"attention_mask: row {row} has padding after a real token (right padding or a hole). "
            "Pad on the left: False before the first real token, True from there on."
        )
    return torch.where(mask > 0, offset[:, None] + mask.cumsum(1) - 1, -1)


def band(start: int, stop: int, window: int, sink_tokens: int = 0) -> list[tuple[int, int]]:
    """The ranges of keys that queries start .. stop - 1 can see: the sinks, then the window."""
    low = max(0, start - window + 1)
    if low <= sink_tokens:
        return [(0, stop)]
    return [(0, sink_tokens), (low, stop)] if sink_tokens else [(low, stop)]


def banded_attention(
    query: Float[Tensor, "batch heads seq dim"],
    key: Float[Tensor, "batch kv_heads seq dim"],
    value: Float[Tensor, "batch kv_heads seq dim"],
    window: int,
    sink_tokens: int = 0,
    block: int = 256,
) -> Float[Tensor, "batch heads seq dim"]:
    """Sliding-window attention of a whole text, in time and memory linear in its length.

    Each block of queries meets its band of keys only: W - 1 keys before the block, the block
    itself, and the sinks. Work is seq * (window + block) instead of seq^2 / 2. Blocks that lie
    alike in their bands share one mask. Position k of the text is index k: there is no padding and
    no cache. Equal to the dense mask of `visible`.
    Raises ValueError for a window or a block below 1 and for negative sinks.
    """
    if window < 1 or block < 1 or sink_tokens < 0:
        raise ValueError(
            f"window={window}, block={block}, sink_tokens={sink_tokens}: window and block must be "
            "at least 1, sink_tokens at least 0"
        )
    length, parts = query.shape[2], []
    positions = torch.arange(length, device=query.device)[None]
    place = None
    for start in range(0, length, block):
        stop = min(start + block, length)
        ranges = band(start, stop, window, sink_tokens)
        keys, values, at = (
            torch.cat([whole.narrow(axis, low, high - low) for low, high in ranges], axis)
            for whole, axis in ((key, 2), (value, 2), (positions, 1))
        )
        if place != (place := (len(ranges), start - ranges[-1][0], stop - start)):
            seen = visible(positions[:, start:stop], at, window, sink_tokens)[:, None]
            mask = query.new_zeros(seen.shape).masked_fill_(~seen, -torch.inf)
        rows = query[:, :, start:stop]
        grouped = query.shape[1] != key.shape[1]
        parts.append(F.scaled_dot_product_attention(rows, keys, values, mask, enable_gqa=grouped))
    return torch.cat(parts, 2)


def flex_attention(
    query: Float[Tensor, "batch heads seq dim"],
    key: Float[Tensor, "batch kv_heads seq dim"],
    value: Float[Tensor, "batch kv_heads seq dim"],
    window: int,
    sink_tokens: int = 0,
) -> Float[Tensor, "batch heads seq dim"]:
    """The same by PyTorch's FlexAttention, which skips hidden blocks of keys.

    Wrapped in `torch.compile` it becomes one kernel (on a GPU: the fast way); as it stands it runs
    anywhere, slowly, through all scores.
    """

    length = query.shape[2]
    mask = flex.create_block_mask(
        lambda batch, head, i, j: (j <= i) & ((i - j < window) | (j < sink_tokens)),
        *(None, None, length, length),
        device=query.device,
    )
    grouped = query.shape[1] != key.shape[1]
    return flex.flex_attention(query, key, value, block_mask=mask, enable_gqa=grouped)
