"""What right answers to the exercises of chapter 10 do: each check raises AssertionError if not."""

import json
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qwen2_book.checkpoint import blocks, layout
from qwen2_book.config import Qwen2Config


def bytes_of_7b() -> int:
    """Bytes of the tensors of Qwen2-7B in bfloat16, the header left out."""
    shapes = layout.shapes(Qwen2Config.named("Qwen2-7B")).values()
    return sum(2 * int(np.prod(shape)) for shape in shapes)


def tensors_of_moe() -> int:
    """Tensors of Qwen2-57B-A14B in a GGUF file, where a layer's experts lie in one tensor."""
    names = layout.shapes(Qwen2Config.named("Qwen2-57B-A14B"))
    return len({re.sub(r"experts\.\d+", "experts", name) for name in names})


# 10-3: header(data) -> {name: (dtype, shape, first byte, last byte + 1)}; ValueError for bad files

GOOD = {
    "b": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "a": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
}


def file_of(header: dict[str, Any], data: int = 32, length: int | None = None) -> bytes:
    """A safetensors file with this header and so many bytes of data."""
    text = json.dumps(header).encode()
    size = len(text) if length is None else length
    return struct.pack("<Q", size) + text + bytes(range(data))


def _with(**changes: dict[str, Any]) -> dict[str, Any]:
    return {name: entry | changes.get(name, {}) for name, entry in GOOD.items()}


def header_reads(read: Callable) -> None:
    """A good file, with metadata, whose data begins where the header ends."""
    blob = file_of({"__metadata__": {"format": "pt"}, **GOOD})
    first = len(blob) - 32
    found = read(blob)
    assert set(found) == {"a", "b"}
    assert [str(found["b"][0]), *found["b"][1]] == ["F32", 2, 3]
    assert tuple(found["b"][2:]) == (first, first + 24)
    assert tuple(found["a"][2:]) == (first + 24, first + 32)


def header_refuses(*blobs: bytes) -> Callable:
    """Each of these files ends in a ValueError."""

    def holds(read: Callable) -> None:
        for blob in blobs:
            try:
                read(blob)
            except ValueError:
                continue
            raise AssertionError("accepted")

    return holds


TRUNCATED = (b"", b"\x07\x00", file_of(GOOD)[:-1], file_of(GOOD)[:40])
HUGE = (file_of(GOOD, length=10**18), file_of(GOOD, length=200))
OVERLAPPING = (
    file_of(_with(a={"data_offsets": [16, 24]}), data=24),
    file_of({**GOOD, "c": GOOD["a"]}),
)
GAPS = (
    file_of(_with(a={"data_offsets": [28, 36]}), data=36),
    file_of(GOOD, data=33),
    file_of({"a": GOOD["a"]}),
)
WRONG_SIZE = (
    file_of(_with(b={"shape": [2, 4]})),
    file_of(_with(b={"dtype": "BF16"})),
    file_of(_with(a={"shape": [5]})),
)


# 10-4 and 10-6: bytes of Q4_0 for weights (n, 32)


def _weights(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    drawn: np.ndarray = random.standard_normal((300, 32)).astype(np.float32)
    return drawn


def _raw(found: object, count: int) -> np.ndarray:
    raw = np.asarray(found)
    assert raw.dtype == np.uint8 and raw.shape == (count, 18)
    return raw


def _errors(weights: np.ndarray, raw: np.ndarray) -> np.ndarray:
    squares: np.ndarray = (blocks.read(raw, "Q4_0") - weights).astype(float) ** 2
    return squares.sum(1)


def q4_form(write: Callable) -> None:
    """Eighteen bytes a block."""
    _raw(write(_weights(0)), 300)


def q4_scale(write: Callable) -> None:
    """The first two bytes are the signed largest weight over -8, float16."""
    weights = _weights(1)
    raw = _raw(write(weights), 300)
    scale = raw[:, :2].copy().view(np.float16)[:, 0].astype(float)
    at = np.abs(weights).argmax(1)
    expected = weights[np.arange(300), at] / -8
    assert np.allclose(scale, expected, rtol=1e-3)


def q4_order(write: Callable) -> None:
    """Weights 0 to 15 lie in the lower halves: what is read back is near, in the same order."""
    weights = np.tile(np.linspace(-8, 7, 32, dtype=np.float32), (3, 1))
    back = blocks.read(_raw(write(weights), 3), "Q4_0")
    assert np.abs(back - weights).max() < 0.6


def q4_nearest(write: Callable) -> None:
    """Rounded to the nearest number that there is: as small an error as the library's."""
    weights = _weights(2)
    ours, theirs = (_errors(weights, raw) for raw in (_raw(write(weights), 300), _q4(weights)))
    assert ours.sum() <= 1.002 * theirs.sum()


def q4_zeros(write: Callable) -> None:
    """A block of zeros is read back as zeros."""
    assert not blocks.read(_raw(write(np.zeros((2, 32), np.float32)), 2), "Q4_0").any()


def _q4(weights: np.ndarray) -> np.ndarray:
    return blocks.write(weights, "Q4_0")


def better_never_worse(write: Callable) -> None:
    """No block has a larger error than the plain scale gives."""
    weights = _weights(3)
    found, plain = _errors(weights, _raw(write(weights), 300)), _errors(weights, _q4(weights))
    assert (found <= plain * 1.0001 + 1e-9).all()


def better_by_three_percent(write: Callable) -> None:
    """Over all blocks the root mean square is at least three percent smaller."""
    weights = _weights(4)
    found, plain = _errors(weights, _raw(write(weights), 300)), _errors(weights, _q4(weights))
    assert np.sqrt(found.sum() / plain.sum()) <= 0.97


# 10-5: from_gguf(tensors, architecture, heads, kv_heads, tied)


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """As the converter writes Llama's rows: first and second half of each head in turn."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _file(output: bool) -> dict[str, Tensor]:
    shapes = {"attn_q.weight": (32, 6), "attn_k.weight": (16, 6), "token_embd.weight": (9, 6)}
    if output:
        shapes["output.weight"] = (9, 6)
    return {name: _random(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


def rows_of_qwen2(convert: Callable) -> None:
    """A qwen2 file's rows stand as they should already."""
    tensors = _file(output=True)
    found = convert(dict(tensors), "qwen2", 4, 2, False)
    for name in ("attn_q.weight", "attn_k.weight"):
        assert torch.equal(found[name], tensors[name])


def rows_of_llama(convert: Callable) -> None:
    """A llama file's rows go back, with the keys' own number of heads."""
    tensors = _file(output=True)
    stored = dict(tensors)
    for name, heads in (("attn_q.weight", 4), ("attn_k.weight", 2)):
        stored[name] = _interleaved(tensors[name], heads)
    found = convert(stored, "llama", 4, 2, False)
    for name in ("attn_q.weight", "attn_k.weight"):
        assert torch.equal(found[name], tensors[name])


def head_of_the_file(convert: Callable) -> None:
    """A head that the file holds is taken, whatever the configuration says."""
    tensors = _file(output=True)
    found = convert(dict(tensors), "qwen2", 4, 2, True)
    assert torch.equal(found["output.weight"], tensors["output.weight"])


def head_tied(convert: Callable) -> None:
    """Without one, a tied head is the embedding."""
    tensors = _file(output=False)
    found = convert(dict(tensors), "qwen2", 4, 2, True)
    assert torch.equal(found["output.weight"], tensors["token_embd.weight"])
