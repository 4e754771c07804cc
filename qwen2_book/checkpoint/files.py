"""Files of a checkpoint: only those inside its folder are opened, and each becomes memory as is."""

import mmap
import os
import stat
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from qwen2_book.errors import CheckpointError

FETCH_AGAIN = "Fetch the checkpoint again."


def inside(folder: Path, name: str) -> Path:
    """The file `name` of a folder; CheckpointError if it, or what it links to, lies elsewhere.

    In the hub's cache a snapshot's files are links to blobs, so there the cache is the border.
    """
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise CheckpointError(
            f"{folder}: found the file name {name!r:.120}, expected a plain name inside the folder. "
            "A checkpoint never reaches out of its folder: do not trust this one."
        )
    try:
        home, real = folder.resolve(strict=True), (folder / name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{folder / name} cannot be found ({error}). {FETCH_AGAIN}") from None
    if not real.is_relative_to(_border(home)):
        raise CheckpointError(
            f"{folder / name} is a link to {real}, outside its folder. Copy that file here, if you "
            "trust it, or load the folder that it lies in."
        )
    return real


def _border(folder: Path) -> Path:
    """The folder itself, or in `…/models--org--name/snapshots/revision` the cache around it."""
    repository = folder.parent.parent
    if folder.parent.name == "snapshots" and repository.name.startswith("models--"):
        return repository.parent
    return folder


class MappedFile:
    """A file's bytes as memory: pages are read when touched, and nothing is copied.

    The mapping is private: writing to a tensor in it copies that page and never changes the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"{path} is no regular file.")
            self.size = status.st_size
            if self.size == 0:
                raise CheckpointError(f"{path} is empty. {FETCH_AGAIN}")
            with path.open("rb") as file:
                self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{path} cannot be opened ({error}).") from None
        self.size = len(self.bytes)

    def view(self, start: int, end: int, dtype: torch.dtype = torch.uint8) -> Tensor:
        """The bytes of a range as a flat tensor: the mapped memory, unless it is misaligned."""
        aligned = start % dtype.itemsize == 0
        kind = dtype if aligned else torch.uint8
        count = (end - start) // kind.itemsize
        if count == 0:
            return torch.empty(0, dtype=dtype)
        found = torch.frombuffer(self.bytes, dtype=kind, count=count, offset=start)
        return found if aligned else found.clone().view(dtype)

    def release(self, start: int, end: int) -> None:
        """Give the pages of an unchanged range back; touching them reads the file again."""
        first, last = -(-start // mmap.PAGESIZE), end // mmap.PAGESIZE
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            begin, length = first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE
            self.bytes.madvise(mmap.MADV_DONTNEED, begin, length)


def raw_bytes(tensor: Tensor) -> UInt8[Tensor, "bytes"]:
    """A tensor's memory, on the CPU, as bytes."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)


def sync(path: Path) -> None:
    """Force a file, or a folder's list of names, onto the disk; errors surface here."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
