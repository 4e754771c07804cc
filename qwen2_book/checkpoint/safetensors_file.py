"""Safetensors files: the header checked, the data mapped into memory, nothing copied."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwen2_book.config_checks import read_json
from qwen2_book.errors import CheckpointError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_HEADER = 100 << 20  # bytes, as in the reference implementation
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Entry:
    """One tensor: which file, its type and shape, its first and its last byte in the file."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(file: Path) -> dict[str, Entry]:
    """The tensors of a file: 8 bytes of length, JSON, then data without gaps or overlaps.

    Raises CheckpointError that names the file and the tensor.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER):
                raise CheckpointError(
                    f"{file}: the header's length is {length:,} bytes in a file of {size:,}. It is "
                    "truncated, or no safetensors file: fetch it again."
                )
            header = json.loads(stream.read(length))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file}: the header is not readable ({error}).") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{file}: the header is a {type(header).__name__}, not an object.")
    header.pop("__metadata__", None)
    entries = {n: _entry(file, n, found, 8 + length, size) for n, found in header.items()}
    last = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != last:
            raise CheckpointError(f"{file}: {name!r:.120} overlaps or leaves a gap in the data.")
        last = entry.end
    if last != size:
        raise CheckpointError(
            f"{file}: the data ends at byte {last:,}, the file at {size:,}. It is truncated or "
            "damaged: fetch it again."
        )
    return entries


def _entry(file: Path, name: str, found: Any, first: int, size: int) -> Entry:
    where = f"{file}: tensor {name!r:.120}"
    if not isinstance(found, dict) or found.get("dtype") not in DTYPES:
        kind = found.get("dtype") if isinstance(found, dict) else found
        raise CheckpointError(f"{where}: found type {kind!r:.60}, expected one of {[*DTYPES]}.")
    shape, offsets = found.get("shape"), found.get("data_offsets")
    numbers = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [-1]
    sane = all(type(n) is int and 0 <= n < 1 << 62 for n in numbers)
    if (
        not isinstance(shape, list)
        or not isinstance(offsets, list)
        or len(offsets) != 2
        or not sane
    ):
        raise CheckpointError(f"{where}: found shape {shape!r:.60} and offsets {offsets!r:.60}.")
    dtype, (start, end) = DTYPES[found["dtype"]], offsets
    if end - start != math.prod(shape) * dtype.itemsize or first + end > size:
        raise CheckpointError(
            f"{where}: {end - start:,} bytes at {start:,} for shape {tuple(shape)}, which do not "
            f"fit the shape or the file of {size:,} bytes. It is truncated or damaged."
        )
    return Entry(file, dtype, tuple(shape), first + start, first + end)


def read_folder(folder: Path) -> dict[str, Entry]:
    """The tensors of a checkpoint folder, in one file or in the shards that its index names."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() and not index.is_file():
        return read_header(_inside(folder, WEIGHTS))
    values = read_json(index, CheckpointError)
    names = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise CheckpointError(f"{index}: weight_map: expected an object of tensor and file names.")
    found: dict[str, Entry] = {}
    for shard in sorted(set(names.values())):
        for name, entry in read_header(_inside(folder, shard)).items():
            if names.get(name) != shard:
                raise CheckpointError(f"{index}: {name!r:.120} stands in {shard}, not as indexed.")
            found[name] = entry
    if missing := sorted(names.keys() - found.keys()):
        raise CheckpointError(f"{index}: {len(missing)} tensors missing, such as {missing[0]!r}.")
    return found


def _inside(folder: Path, name: str) -> Path:
    """The file of that name in the folder; refused if it, or what it links to, lies outside.

    In a hub's cache a snapshot's files link to `blobs` beside it: those are inside.
    """
    file = folder / name
    if not name or Path(name).name != name or "\0" in name:
        raise CheckpointError(f"{folder}: the index names {name!r:.120}, expected a file in it.")
    if not file.is_file():
        raise CheckpointError(f"{file} is not there, but named in the index: fetch it.")
    root = folder.resolve()
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    real = file.resolve()
    if real.parent not in (root, blobs):
        raise CheckpointError(f"{file} links to {real}, outside of its folder: refused.")
    return file


def map_tensors(entries: dict[str, Entry]) -> dict[str, Tensor]:
    """Tensors whose memory is the file's: pages are read when used, and writing changes no file."""
    files = {entry.file for entry in entries.values()}
    data = {
        file: torch.from_file(str(file), shared=False, size=file.stat().st_size, dtype=torch.uint8)
        for file in files
    }
    tensors = {}
    for name, entry in entries.items():
        raw = data[entry.file][entry.start : entry.end]
        if entry.start % entry.dtype.itemsize:
            raw = raw.clone()  # a header of odd length: rare, and still right
        tensors[name] = raw.view(entry.dtype).view(entry.shape)
    return tensors
