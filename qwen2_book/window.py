"""Which keys a query may see: absolute positions in, a mask out."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


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
