"""Files that survive a power cut: flushed with their directories before anybody relies on them, and room taken ahead.

Owns the order of write, flush and rename. Knows nothing of what is in the files. Paths are text or bytes.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FALLOC_FL_KEEP_SIZE = 1
"""Take blocks without changing the size (fallocate(2)): the size stays what was written so far."""

_CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM})


def flush(path: Path | bytes) -> None:
    """Bring a file, or the names in a directory, to the disk; raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directories(path: Path) -> None:
    """Make a directory and those above it, with their names on the disk; raises OSError."""
    missing = [place for place in (path, *path.parents) if not place.is_dir()]
    for place in reversed(missing):
        place.mkdir(exist_ok=True)
        flush(place.parent)


def write(path: Path, text: str) -> None:
    """Write a file so that its name only ever stands for all of it, on the disk too; raises OSError.

    Whatever lay there before, a link too, is replaced and never written through.
    """
    part = path.with_name(f".{path.name.removeprefix('.')}.part")
    part.unlink(missing_ok=True)
    with part.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    flush(path.parent)


def take_room(handle: int, size: int) -> None:
    """Take blocks for `size` bytes of an open file before they are written; nothing where the filesystem cannot.

    Raises OSError where there is no room, also by a quota, which no count of free bytes shows.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # Where off_t has 32 bits, only this one takes large files; other libraries than glibc have 64 bits anyway.
    fallocate = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if fallocate is None or size <= 0:
        return
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while fallocate(handle, FALLOC_FL_KEEP_SIZE, 0, size):
        number = ctypes.get_errno()
        if number in _CANNOT:
            return
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def allocated(handle: int) -> int:
    """Count the bytes of blocks that an open file has already."""
    return os.fstat(handle).st_blocks * 512
