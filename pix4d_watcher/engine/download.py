"""Brings one result to the disk: in ranges, continued where a try ended, flushed, compared with its ETag.

Owns the temporary file, the room that it takes and what an error of the disk of results means. When and what is fetched
is decided by `fetching`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import Corrupted, DiskFull, HostError
from pix4d_watcher.engine.media import WRITES
from pix4d_watcher.host import durable
from pix4d_watcher.journal import projects, results

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Output, Project

RANGE = 32 << 20
"""Bytes asked for at a time: a broken link costs at most this much again, and a range is minutes on a slow link."""

FIRST = 256 << 10
"""Bytes asked for at first, to learn what the object is: only what is known by its ETag is continued after a break."""

RESERVE = 64 << 20
"""Bytes that must stay free on the disk of results or of an archive, so that a full one does not take the rest of the
machine along."""


def prove(context: Context, output: Output, part: Path, etag: str) -> None:
    """Compare what was fetched with its ETag, where that is an MD5; raises Corrupted.

    Of an encrypted object it only looks like one, and of one that was put together from parts it does not even: the
    same bytes fetched twice are believed.
    """
    if not re.fullmatch("[0-9a-f]{32}", etag):
        return
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != etag and context.unlike.get(output.id) != digest:
        context.unlike[output.id] = digest
        raise Corrupted(
            f"Download of {output.name}: the bytes that arrived have the MD5 {digest}, the cloud names {etag}"
        )
    context.unlike.pop(output.id, None)


def download(context: Context, project: Project, output: Output, part: Path) -> tuple[int, str]:
    """Bring the temporary file to its full length on the disk, from where a try ended; returns that and the ETag.

    Raises Stale before the next range where a person stopped the project.
    """
    assert project.remote_id is not None
    bucket = context.buckets.of(project.remote_id)
    line = context.line()

    def disk(*, anyway: bool = False) -> AbstractContextManager[None]:
        return on_disk(context, project, part.parent, anyway=anyway)

    with disk():
        handle = _opened(context, output, part)
    try:
        total, etag = output.size, output.etag
        with disk():
            if etag is None:
                os.ftruncate(handle, 0)
            writer = _Writer(context, disk, handle, os.fstat(handle).st_size)
        while total is None or writer.at < total:
            projects.not_stopped(context.journal, project.id)
            with disk():
                take_room(part, handle, total or FIRST)
            total, answered = bucket.get(
                line,
                output.key,
                start=writer.at,
                size=_next_mark(writer.at) - writer.at,
                if_match=etag,
                write=writer.write,
                stop=context.stop.is_set,
                bucket=output.bucket or None,
                region=output.region,
            )
            with disk():
                _flush(handle, part)
            if etag is None:
                results.sized(context.journal, output, size=total, etag=answered)
                etag = answered
        # An older try may have left more than this result has, and not on the disk.
        with disk():
            os.ftruncate(handle, total)
            _flush(handle, part)
        assert etag is not None
        return total, etag
    finally:
        context.beats.rest()
        line.close()
        with disk(anyway=True):
            os.close(handle)


def _opened(context: Context, output: Output, part: Path) -> int:
    """Open the temporary file; of one that another process left, only what was surely flushed is kept.

    A power cut leaves a size without the bytes: ext4 was seen to show zeros at the end of a file that had its room
    taken ahead. Everything below a mark is flushed before a byte beyond it is written.
    """
    durable.make_directories(part.parent)
    if part.is_symlink():  # somebody put it there: what it leads to is not ours to write
        part.unlink()
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    if output.id not in context.own_parts:
        os.ftruncate(handle, _last_mark(os.fstat(handle).st_size))
        context.own_parts.add(output.id)
    return handle


def _next_mark(at: int) -> int:
    return FIRST if at < FIRST else FIRST + ((at - FIRST) // RANGE + 1) * RANGE


def _last_mark(size: int) -> int:
    """Return the last mark that something was written beyond."""
    return 0 if size <= FIRST else FIRST + (size - FIRST - 1) // RANGE * RANGE


def _flush(handle: int, part: Path) -> None:
    """Flush the temporary file; raises OSError, and then it is gone.

    After a flush that failed, Linux takes the pages for written and shows them: the file could not be trusted again.
    """
    try:
        os.fsync(handle)
    except OSError:
        part.unlink(missing_ok=True)
        raise


class _Writer:
    """Writes what arrives at its place in the file, and shows that the download is alive."""

    def __init__(
        self, context: Context, disk: Callable[[], AbstractContextManager[None]], handle: int, at: int
    ) -> None:
        self._context = context
        self._disk = disk
        self._handle = handle
        self.at = at

    def write(self, piece: memoryview) -> None:
        """Write one piece; raises HostError, MediaAbsent."""
        self._context.beats.beat(self._context.hung)
        with self._disk():
            while piece:
                written = os.pwrite(self._handle, piece, self.at)
                self.at += written
                piece = piece[written:]


def take_room(part: Path, handle: int, size: int) -> None:
    """Take room for all of a file before it is fetched; raises DiskFull, OSError by a quota."""
    needed = size - durable.allocated(handle)
    if needed <= 0:
        return
    facts = os.fstatvfs(handle)
    free = facts.f_bavail * facts.f_frsize
    if free < RESERVE + needed:
        raise DiskFull(
            f"{part.parent}: {(RESERVE + needed) / 1e6:.0f} MB are needed for the results, {free / 1e6:.0f} MB are free"
        )
    durable.take_room(handle, size)


@contextmanager
def on_disk(context: Context, project: Project, folder: Path, *, anyway: bool = False) -> Iterator[None]:
    """Go to the disk of the results, and say what is wrong with it: raises DiskFull, HostError, MediaAbsent."""
    try:
        with context.media.at(str(context.settings.results), project.id, anyway=anyway, patience=WRITES):
            yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{folder}: no room for the results: {_LACKS[error.errno]}") from error
        why = _DISK.get(error.errno or 0, f"{error.strerror}. The service's user must be able to write there")
        raise HostError(f"{folder}: the results cannot be written: {why}") from error


_LACKS = {
    errno.ENOSPC: "the disk is full, or has no inodes left (df -i)",
    errno.EDQUOT: "the disk quota of the service's user is used up",
}

_DISK = {
    errno.EROFS: "the disk is read-only, as the system makes it after an error (see dmesg); "
    "check it, then: mount -o remount,rw",
    errno.EIO: "the disk fails (see dmesg); what was not flushed is fetched again",
}
