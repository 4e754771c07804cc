"""Blocks of a GGUF file: weights in, bytes out, and what is read back.

The `gguf` library reads every type, and writes those of one level: a block of 32 weights with its
scale. The K-quants, whose scales are quantised in their turn, are written here, in NumPy: each
scale from the largest weight, without the search for better ones that llama.cpp makes. The layouts
are those of the library's readers.
"""

from collections.abc import Callable

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize, quantize

SUPER = 256  # weights of a K-quant's block, which llama.cpp calls a super-block
AT_A_TIME = 4096  # super-blocks written at once, so that little exists twice


def bits(kind: str) -> float:
    """Bits a weight of a type, its scales counted: 8.5 for Q8_0."""
    weights, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return 8 * size / weights


def write(weights: np.ndarray, kind: str) -> np.ndarray:
    """Rows of float32 weights as the bytes of a type: (rows, width) -> (rows, bytes), uint8.

    Raises ValueError where a row is not whole blocks, NotImplementedError for types that neither
    the library nor this module writes.
    """
    block = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]
    if weights.shape[-1] % block:
        raise ValueError(f"{kind}: rows of {weights.shape[-1]} are no whole blocks of {block}.")
    weights = np.ascontiguousarray(weights, dtype=np.float32)
    if kind not in WRITERS:
        return quantize(weights, GGMLQuantizationType[kind]).view(np.uint8)
    blocks = weights.reshape(-1, SUPER)
    parts = [blocks[at : at + AT_A_TIME] for at in range(0, len(blocks), AT_A_TIME)]
    with np.errstate(all="ignore"):  # a block of zeros has scale zero
        written = np.concatenate([WRITERS[kind](part) for part in parts])
    return written.reshape(*weights.shape[:-1], -1)


def read(raw: np.ndarray, kind: str) -> np.ndarray:
    """The weights that rows of bytes stand for, float32: (rows, bytes) -> (rows, width)."""
    return dequantize(raw, GGMLQuantizationType[kind])


def rounded(weights: np.ndarray, kind: str) -> np.ndarray:
    """What becomes of weights that are written as a type and read back, in the same shape."""
    with np.errstate(all="ignore"):
        return read(write(weights, kind), kind).reshape(weights.shape)


def relative_error(weights: np.ndarray, kind: str) -> float:
    """Root mean square of the rounding error, over that of the weights."""
    difference = (rounded(weights, kind) - weights).astype(np.float64)
    return float(np.sqrt(np.mean(difference**2) / np.mean(weights.astype(np.float64) ** 2)))


def _nearest(x: np.ndarray, low: int, high: int) -> np.ndarray:
    return np.nan_to_num(np.rint(x)).clip(low, high)


def _half(x: np.ndarray) -> np.ndarray:
    """Rounded to float16, as the file holds it."""
    return x.astype(np.float16).astype(np.float32)


def with_minimum(weights: np.ndarray, levels: int) -> tuple[np.ndarray, ...]:
    """Eight blocks of 32, each w = d·s·q - m·t: q of `levels` + 1 values, s and t of six bits.

    weights: (n, 256). Returns d and m (n, 1), in float16's values; s and t (n, 8); q (n, 8, 32).
    """
    parts = weights.reshape(-1, 8, 32)
    least = np.minimum(parts.min(-1), 0)
    scale = (parts.max(-1) - least) / levels
    d, m = (_half(each.max(-1, keepdims=True) / 63) for each in (scale, -least))
    s, t = _nearest(scale / d, 0, 63), _nearest(-least / m, 0, 63)
    q = _nearest((parts + (m * t)[..., None]) / (d * s)[..., None], 0, levels)
    return d, m, s, t, q


def _k4_head(d: np.ndarray, m: np.ndarray, s: np.ndarray, t: np.ndarray) -> list[np.ndarray]:
    """The sixteen bytes before the numbers: two halves, and twice eight values of six bits."""
    s, t = s.astype(np.uint8), t.astype(np.uint8)
    first, second = (each[:, :4] | each[:, 4:] >> 4 << 6 for each in (s, t))
    third = s[:, 4:] & 15 | t[:, 4:] << 4
    halves = [each.astype(np.float16).view(np.uint8) for each in (d, m)]
    return [*halves, first, second, third]


def _nibbles(q: np.ndarray) -> np.ndarray:
    """(n, 8, 32) numbers below 16: two blocks in 32 bytes, the even one in the lower halves."""
    pairs = q.reshape(len(q), 4, 2, 32)
    return (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(len(q), -1)


def _q4_k(weights: np.ndarray) -> np.ndarray:
    *head, q = with_minimum(weights, 15)
    return np.concatenate([*_k4_head(*head), _nibbles(q.astype(np.uint8))], axis=-1)


def _q5_k(weights: np.ndarray) -> np.ndarray:
    *head, q = with_minimum(weights, 31)
    q = q.astype(np.uint8)
    fifth = np.bitwise_or.reduce(q >> 4 << np.arange(8, dtype=np.uint8)[:, None], axis=1)
    return np.concatenate([*_k4_head(*head), fifth, _nibbles(q & 15)], axis=-1)


def symmetric(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sixteen blocks of 16, each w = d·s·q: q from -32 to 31, s from -128 to 127.

    weights: (n, 256). Returns d (n, 1), in float16's values; s (n, 16); q (n, 16, 16).
    """
    parts = weights.reshape(-1, 16, 16)

    def largest(x: np.ndarray) -> np.ndarray:
        return np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1)

    scale = largest(parts)[..., 0] / -32  # the largest weight becomes -32, a number without a twin
    d = _half(largest(scale) / -128)
    s = _nearest(scale / d, -128, 127)
    return d, s, _nearest(parts / (d * s)[..., None], -32, 31)


def _q6_k(weights: np.ndarray) -> np.ndarray:
    d, s, q = symmetric(weights)
    numbers = (q.reshape(-1, 2, 4, 32) + 32).astype(np.uint8)  # in each half, four rows of 32
    low = numbers[:, :, :2] & 15 | numbers[:, :, 2:] << 4
    shifts = np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    high = np.bitwise_or.reduce(numbers >> 4 << shifts, axis=2)
    parts = [low.reshape(len(d), -1), high.reshape(len(d), -1), s.astype(np.int8).view(np.uint8)]
    return np.concatenate([*parts, d.astype(np.float16).view(np.uint8)], axis=-1)


WRITERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
