"""The head of a GGUF file: metadata and where each tensor lies; nothing is trusted.

The `gguf` library reads the same, but takes ten seconds for this family's vocabulary and allocates
what a damaged file tells it to; it is used for the numbers inside the tensors.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from qwen2_book.errors import CheckpointError

# GGUF's scalar types by their number; 8 is a string and 9 an array (the format's specification).
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY = 8, 9
MAX_HEAD = 64 << 20  # bytes of metadata and tensor list; this family's are 6 million
MAX_ITEMS = 1 << 20  # values, array elements and tensors in all; this family's are half a million


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor: its shape in PyTorch's order, its type's number, its first byte in the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


class _Reader:
    """Little-endian values from a file, which must not run out nor ask for absurd amounts."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size, self.items = file, size, 0

    def take(self, count: int) -> bytes:
        if count > MAX_HEAD or self.file.tell() + count > min(self.size, MAX_HEAD):
            raise CheckpointError(
                f"GGUF head: {count:,} more bytes wanted at byte {self.file.tell():,}, the file "
                f"has {self.size:,}. It is truncated or damaged: fetch it again."
            )
        return self.file.read(count)

    def scalar(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def count(self) -> int:
        self.items += (number := self.scalar("Q"))
        if self.items > MAX_ITEMS:
            raise CheckpointError(
                f"GGUF head: found a count of {number:,}, expected at most {MAX_ITEMS:,} in all. "
                "The file is damaged: fetch it again."
            )
        return number

    def string(self) -> str:
        return self.take(self.scalar("Q")).decode("utf-8")

    def value(self, kind: int, nested: bool = False) -> Any:
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY or nested:
            raise CheckpointError(f"GGUF head: found value type {kind}, expected 0 to 12.")
        inner, count = self.scalar("I"), self.count()
        if inner in SCALARS:
            code = SCALARS[inner]
            data = self.take(count * struct.calcsize(f"<{code}"))
            return list(struct.unpack(f"<{count}{code}", data))
        return [self.value(inner, nested=True) for _ in range(count)]


def read_head(path: Path) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
    """Metadata and tensors of a GGUF file (version 2 or 3, little-endian), without their data.

    Raises CheckpointError, which names the file, for whatever is wrong with it.
    """
    try:
        if not path.is_file():
            raise CheckpointError("no regular file is there.")
        size = path.stat().st_size
        with path.open("rb") as file:
            return _read(_Reader(file, size))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (OSError, ValueError, struct.error, MemoryError) as error:
        raise CheckpointError(
            f"{path} is not a readable GGUF file ({type(error).__name__}: {error})."
        ) from None


def _read(reader: _Reader) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
    magic, version = reader.take(4), reader.scalar("I")
    if magic != b"GGUF" or version not in (2, 3):
        raise CheckpointError(
            f"found magic {magic!r} and version {version}, expected b'GGUF' and 2 or 3."
        )
    tensor_count, key_count = reader.count(), reader.count()
    metadata = {}
    for _ in range(key_count):
        key = reader.string()
        metadata[key] = reader.value(reader.scalar("I"))
    listed = []
    for _ in range(tensor_count):
        name, dimensions = reader.string(), reader.scalar("I")
        if dimensions > 8:
            raise CheckpointError(f"tensor {name!r:.60}: found {dimensions} dimensions.")
        shape = tuple(reader.scalar("Q") for _ in range(dimensions))[::-1]  # fastest first on disk
        if math.prod(shape) > 1 << 40:
            raise CheckpointError(f"tensor {name!r:.60}: found shape {shape}, which is absurd.")
        listed.append((name, shape, reader.scalar("I"), reader.scalar("Q")))
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 1 << 20:
        raise CheckpointError(f"general.alignment: found {alignment!r:.60}, expected 32.")
    data = -(-reader.file.tell() // alignment) * alignment
    tensors = {name: GGUFTensor(name, shape, kind, data + at) for name, shape, kind, at in listed}
    if len(tensors) != tensor_count:
        raise CheckpointError("two tensors have the same name; fetch the file again.")
    return metadata, tensors
