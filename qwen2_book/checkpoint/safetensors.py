"""safetensors: a JSON header with every tensor's dtype, shape and place, then the bytes.

The format: https://github.com/huggingface/safetensors#format. The header is checked completely
before a tensor is made of it, and the tensors are the mapped file itself.
"""

import json
import math
import os
import re
import struct
from pathlib import Path
from typing import Any

from qwen2_book.checkpoint.files import FETCH_AGAIN, MappedFile, inside
from qwen2_book.checkpoint.tensors import PLAIN, Stored
from qwen2_book.config import read_json
from qwen2_book.errors import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
MAX_HEADER = 32 << 20  # bytes; 57B-A14B's whole header has less than one megabyte
MAX_SHARDS = 4096


def read_folder(folder: Path) -> dict[str, Stored]:
    """All tensors of a checkpoint folder, in one file or in shards that an index lists."""
    if os.path.lexists(folder / SINGLE):
        return read_file(inside(folder, SINGLE))
    index = inside(folder, INDEX)
    values = read_json(index, CheckpointError, MAX_HEADER)
    where = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(where, dict) or not all(isinstance(v, str) for v in where.values()):
        raise CheckpointError(
            f"{index}: weight_map: expected an object of tensor and shard names. {FETCH_AGAIN}"
        )
    shards = sorted(set(where.values()))
    if len(shards) > MAX_SHARDS:
        raise CheckpointError(f"{index}: {len(shards):,} shards, expected at most {MAX_SHARDS:,}.")
    tensors: dict[str, Stored] = {}
    for shard in shards:
        if not (shard.endswith(".safetensors") or "/" in shard or "\\" in shard):
            raise CheckpointError(
                f"{index}: found the shard {shard!r:.120}, expected a .safetensors file. Other "
                "kinds of weight files are not read."
            )
        held = read_file(inside(folder, shard))
        if twice := sorted(held.keys() & tensors.keys()):
            raise CheckpointError(f"{folder}: {twice[0]:.120} is in {shard} and in another shard.")
        tensors |= held
    for name, shard in where.items():
        if name not in tensors or tensors[name].file.path != inside(folder, shard):
            raise CheckpointError(
                f"{index}: {name:.120} should be in {shard}, and is not there. {FETCH_AGAIN}"
            )
    return tensors


def read_file(path: Path) -> dict[str, Stored]:
    """The tensors of one file, from its header; CheckpointError if anything in it is off."""
    file = MappedFile(path)
    if file.size < 8:
        raise CheckpointError(f"{path}: {file.size} bytes, expected at least 8. {FETCH_AGAIN}")
    (length,) = struct.unpack_from("<Q", file.bytes)
    if length > min(MAX_HEADER, file.size - 8):
        raise CheckpointError(
            f"{path}: the header says {length:,} bytes for itself; the file has {file.size:,}, and "
            f"a header at most {MAX_HEADER:,}. It is cut short or no safetensors. {FETCH_AGAIN}"
        )
    try:
        text = file.bytes[8 : 8 + length].decode()
        header = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is no JSON ({error}). {FETCH_AGAIN}") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is no JSON object. {FETCH_AGAIN}")
    header.pop("__metadata__", None)
    tensors = {name: _stored(file, 8 + length, name, entry) for name, entry in header.items()}
    _check_tiling(file, 8 + length, tensors)
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name stands twice")
    return values


def _stored(file: MappedFile, data: int, name: str, entry: Any) -> Stored:
    """One entry of the header, `{"dtype", "shape", "data_offsets"}`, checked against the file."""
    here = f"{file.path}: {name:.120}"
    if not isinstance(entry, dict):
        raise CheckpointError(f"{here}: found {entry!r:.60}, expected an object. {FETCH_AGAIN}")
    kind, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or kind not in PLAIN:
        raise CheckpointError(
            f"{here}: dtype: found {kind!r:.60}, expected one of {', '.join(PLAIN)}. Packed or "
            "quantised weights: take the unquantised checkpoint, or a GGUF file."
        )
    for field, numbers in (("shape", shape), ("data_offsets", offsets)):
        whole = isinstance(numbers, list) and len(numbers) <= 8
        if not whole or not all(type(n) is int and 0 <= n < 1 << 60 for n in numbers):
            raise CheckpointError(f"{here}: {field}: found {numbers!r:.80}. {FETCH_AGAIN}")
    size = math.prod(shape) * PLAIN[kind].itemsize
    room = file.size - data
    if len(offsets) != 2 or offsets[1] - offsets[0] != size or offsets[1] > room:
        raise CheckpointError(
            f"{here}: data_offsets: found {offsets}, expected {size:,} bytes for {kind} {shape} "
            f"within the {room:,} that the file has. It is cut short or damaged. {FETCH_AGAIN}"
        )
    return Stored(tuple(shape), kind, file, data + offsets[0], data + offsets[1])


def _check_tiling(file: MappedFile, data: int, tensors: dict[str, Stored]) -> None:
    """Tensors follow each other with neither gap nor overlap, and the file ends with the last."""
    end = data
    for name, stored in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if stored.start != end:
            raise CheckpointError(
                f"{file.path}: {name:.120} begins at byte {stored.start:,}, expected {end:,}: "
                f"tensors overlap or leave a gap. {FETCH_AGAIN}"
            )
        end = stored.end
    if end != file.size:
        raise CheckpointError(
            f"{file.path}: the tensors end at byte {end:,} and the file at {file.size:,}. "
            f"{FETCH_AGAIN}"
        )
