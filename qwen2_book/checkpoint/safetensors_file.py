"""Safetensors files: the header checked, the data mapped into memory; written without a copy."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from qwen2_book.checkpoint.files import MappedFile, inside, sync
from qwen2_book.config_checks import read_json
from qwen2_book.errors import CheckpointError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
MAX_HEADER = 16 << 20  # bytes; the header of 57B-A14B, with 5,771 tensors, has less than one
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
            header = json.loads(stream.read(length).decode())
    except (OSError, ValueError, RecursionError, MemoryError) as error:
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
    kind = found.get("dtype") if isinstance(found, dict) else found
    if not isinstance(kind, str) or kind not in DTYPES:
        raise CheckpointError(f"{where}: found type {kind!r:.60}, expected one of {[*DTYPES]}.")
    shape, offsets = found.get("shape"), found.get("data_offsets")
    numbers = [-1]
    if isinstance(shape, list) and isinstance(offsets, list) and len(shape) <= 8:
        numbers = [*shape, *offsets]
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers) or len(offsets) != 2:
        raise CheckpointError(f"{where}: found shape {shape!r:.60} and offsets {offsets!r:.60}.")
    dtype, (start, end) = DTYPES[kind], offsets
    if end - start != math.prod(shape) * dtype.itemsize or first + end > size:
        raise CheckpointError(
            f"{where}: {end - start:,} bytes at {start:,} for shape {tuple(shape)}, which do not "
            f"fit the shape or the file of {size:,} bytes. It is truncated or damaged."
        )
    return Entry(file, dtype, tuple(shape), first + start, first + end)


def read_folder(folder: Path) -> dict[str, Entry]:
    """The tensors of a checkpoint folder, in one file or in the shards that its index names."""
    if os.path.lexists(folder / WEIGHTS):  # where both stand, transformers takes this one too
        return read_header(inside(folder, WEIGHTS))
    index = folder / INDEX
    if not os.path.lexists(index):
        found = sorted(file.name for file in folder.glob("*.safetensors"))
        raise CheckpointError(
            f"{folder} holds neither {WEIGHTS} nor {INDEX}; found {found!r:.200}. Fetch the whole "
            "checkpoint; shards need their index, adapters their model."
        )
    values = read_json(inside(folder, INDEX), CheckpointError, MAX_HEADER)
    names = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise CheckpointError(f"{index}: weight_map: expected an object of tensor and file names.")
    entries: dict[str, Entry] = {}
    for shard in sorted(set(names.values())):
        for name, entry in read_header(inside(folder, shard)).items():
            if names.get(name) != shard:
                raise CheckpointError(f"{index}: {name!r:.120} stands in {shard}, not as indexed.")
            entries[name] = entry
    if missing := sorted(names.keys() - entries.keys()):
        raise CheckpointError(
            f"{index}: {len(missing)} tensors missing, such as {missing[0]!r:.120}."
        )
    return entries


def read_tensors(
    entries: Mapping[str, Entry], dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """Each tensor in turn: the file's own memory where dtype and device allow, else converted."""
    files = {path: MappedFile(path) for path in {entry.file for entry in entries.values()}}
    for name, entry in entries.items():
        file = files[entry.file]
        mapped = file.view(entry.start, entry.end, entry.dtype).view(entry.shape)
        tensor = mapped.to(device, dtype)
        if tensor is not mapped:
            file.release(entry.start, entry.end)
        yield name, tensor


def write_folder(tensors: Mapping[str, Tensor], folder: Path, shard_bytes: int) -> None:
    """Write the tensors as one file, or as shards of at most so many bytes, and their index."""
    shards: list[dict[str, Tensor]] = [{}]
    room = shard_bytes
    for name, tensor in tensors.items():
        if shards[-1] and tensor.nbytes > room:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        _write(shards[0], folder / WEIGHTS)
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write(shard, folder / file)
        places |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _write(tensors: dict[str, Tensor], file: Path) -> None:
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(on_cpu, file, {"format": "pt"})
    file.chmod(0o644)  # the library writes files that only their owner may read
    sync(file)
