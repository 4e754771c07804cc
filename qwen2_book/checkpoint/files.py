"""Files of a checkpoint: opened only inside their folder, mapped into memory, moved into place."""

import contextlib
import mmap
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from qwen2_book.errors import CheckpointError

REPLACED = "replaced"  # where old files wait until the new ones are all in place


def inside(folder: Path, name: str) -> Path:
    """The file of that name in the folder; refused if it, or what it links to, lies outside.

    In the hub's cache (`models--org--name/snapshots/revision`) a checkpoint's files are links to
    blobs, which several checkpoints may share: there the whole cache is inside.
    """
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise CheckpointError(f"{folder}: the index names {name!r:.120}, expected a file in it.")
    file = folder / name
    try:
        root, real = folder.resolve(strict=True), file.resolve(strict=True)
        regular = stat.S_ISREG(real.stat().st_mode)
    except (OSError, RuntimeError) as error:  # what a circle of links raises differs
        raise CheckpointError(f"{file} is not there ({error}): fetch it.") from None
    repository = root.parent.parent
    if root.parent.name == "snapshots" and repository.name.startswith("models--"):
        root = repository.parent
    if not real.is_relative_to(root):
        raise CheckpointError(
            f"{file} links to {real}, outside of its folder: refused. Copy that file into the "
            "folder if you trust it."
        )
    if not regular:
        raise CheckpointError(f"{file} is no regular file.")
    return file


class MappedFile:
    """A file's bytes as memory: pages are read when they are used, and none is copied.

    The mapping is private: writing to a tensor in it copies that page, and changes no file.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError, OverflowError) as error:
            raise CheckpointError(
                f"{path} cannot be mapped into memory ({error}). Is it whole, and is there enough "
                "address space?"
            ) from None

    def view(self, start: int, end: int, dtype: torch.dtype) -> Tensor:
        """A range of bytes as a flat tensor with memory of its own: these bytes, if aligned."""
        if start == end:
            return torch.empty(0, dtype=dtype)
        if start % dtype.itemsize:  # a header of odd length: rare, and still right
            return self.view(start, end, torch.uint8).clone().view(dtype)
        count = (end - start) // dtype.itemsize
        return torch.frombuffer(self.bytes, dtype=dtype, count=count, offset=start)

    def release(self, start: int, end: int) -> None:
        """Give back the memory of a range that has not been written to; it stays readable."""
        first, last = -(-start // mmap.PAGESIZE), end // mmap.PAGESIZE
        if first < last and hasattr(mmap, "MADV_DONTNEED"):
            length = (last - first) * mmap.PAGESIZE
            self.bytes.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, length)


def sync(path: Path) -> None:
    """Wait until a file is on the disk, which is when some disks first say that they are full."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def move_into_place(staged: Path, folder: Path, stale: Iterable[str], last: str) -> None:
    """Move all files of `staged`, a folder inside `folder`, up into it; remove the stale ones.

    Old files step aside first and `last` comes last, so at no moment do old and new weights stand
    together. If a step fails, all are put back and the error is raised again; what could not be
    put back stays in `staged/replaced`, which is empty otherwise.
    """
    fresh = sorted((file.name for file in staged.iterdir()), key=lambda name: (name == last, name))
    aside = staged / REPLACED
    aside.mkdir()
    old = [name for name in {*fresh, *stale} if os.path.lexists(folder / name)]
    moves = [(folder / name, aside / name) for name in sorted(old, key=lambda n: n != last)]
    moves += [(staged / name, folder / name) for name in fresh]
    undo: list[Callable[[], None]] = []
    try:
        for source, target in moves:
            undo.append(partial(os.rename, target, source))
            os.replace(source, target)
    except BaseException:
        for back in reversed(undo):
            with contextlib.suppress(OSError):  # the move that failed has nothing to undo
                back()
        raise
    shutil.rmtree(aside, ignore_errors=True)
