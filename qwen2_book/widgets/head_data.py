"""What the head-window figure draws: attention of real prompts, packed small enough for a page."""

import base64
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from qwen2_book.trace import Trace, mass_in_window

SINKS = (0, 1, 4)  # the choices of always-visible first tokens
STORED = Path(__file__).with_name("head_window.json")  # written by tools/head_data.py
LONGEST = 128  # tokens of a prompt


def kept_by_window(
    attention: Float[Tensor, "heads seq seq"],
) -> Float[Tensor, "sinks heads seq"]:
    """The share of attention inside a window of 1 .. seq, averaged over all queries.

    One row of the result for each number of sinks in `SINKS`.
    """
    length = attention.shape[-1]
    rows = range(length)
    windows = range(1, length + 1)
    return torch.stack(
        [
            torch.stack([mass_in_window(attention, rows, w, s).mean(-1) for w in windows], -1)
            for s in SINKS
        ]
    )


def levels(attention: Float[Tensor, "heads seq seq"], top: int = 63) -> UInt8[Tensor, "cells"]:
    """The lower triangles, row by row, as square roots in 0 .. top: one percent is still seen."""
    rows, columns = torch.tril_indices(attention.shape[-1], attention.shape[-1])
    return (attention[:, rows, columns].sqrt() * top).round().to(torch.uint8).flatten()


def pack(numbers: Tensor, dtype: str) -> str:
    """Numbers as little-endian integers, deflated, in base64."""
    raw = numbers.cpu().numpy().astype(dtype).tobytes()
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def unpack(text: str) -> bytes:
    """The bytes that `pack` was given."""
    return zlib.decompress(base64.b64decode(text))


def prompt_data(
    name: str, tokens: Sequence[str], seen: Trace, mapped: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """One prompt of the figure: distance curves of all heads, whole maps of the `mapped` ones.

    seen: `trace` of that prompt alone, all layers, heads and rows. Raises ValueError for prompts
    longer than `LONGEST` and for traces that are not whole.
    """
    length, layers = len(tokens), len(seen.attention)
    shape = (1, len(seen.heads), length, length)
    if not 0 < length <= LONGEST or any(a.shape != shape for a in seen.attention.values()):
        raise ValueError(
            f"{length} tokens, {layers} layers traced: expected 1 to {LONGEST} tokens and the "
            "attention of all heads over all rows, as trace(model, ids) gives it"
        )
    attention = torch.cat([seen.attention[layer][0] for layer in sorted(seen.attention)])
    kept = (kept_by_window(attention) * 1000).round().int()
    steps = torch.diff(kept, dim=-1, prepend=torch.zeros_like(kept[..., :1]))
    chosen = torch.stack([seen.attention[layer][0, head] for layer, head in mapped])
    return {
        "name": name,
        "tokens": list(tokens),
        "kept": pack(steps, "<i2"),
        "maps": pack(levels(chosen), "u1"),
    }


def stored() -> dict[str, Any]:
    """The stored prompts: one English and one Chinese, on the checkpoint that `source` names."""
    data: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return data
