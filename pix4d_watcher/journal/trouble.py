"""What failed when the journal's file fails, in words: no room, a read-only disk, a broken one, another file.

SQLite says little more than "disk I/O error", so the disk itself is asked: what does it answer to a small write?
Knows nothing of tables and of what follows for the service.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import JournalDiskFails, JournalDiskFull, JournalError

if TYPE_CHECKING:
    from pathlib import Path

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""EDQUOT: the disk has room, and this user has not. SQLite takes it for a broken disk (os_unix.c, seekAndWrite)."""

PROBE = 64 << 10
"""Bytes of the write that asks the disk: more than the 32 KiB by which SQLite grows its index of the -wal."""

_ASK = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})


def of_database(path: Path, error: sqlite3.Error) -> JournalError:
    """Translate an error of SQLite about the journal at `path`."""
    code, words = getattr(error, "sqlite_errorcode", 0) & 0xFF, str(error)
    answer = errno.ENOSPC if code == sqlite3.SQLITE_FULL else _ask_disk(path) if code in _ASK else 0
    if answer == 0 and code == sqlite3.SQLITE_IOERR:
        answer = errno.EIO
    if answer in {*NO_ROOM, errno.EROFS, errno.EIO}:
        return of_system(path, OSError(answer, words))
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return JournalError(f"{path}: the journal stays busy; is another program holding it?")
    if code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return JournalError(
            f"{path}: this is no journal of pix4d-watcher, or it is damaged ({words}). Nothing was changed"
        )
    return JournalError(f"{path}: the journal cannot be used: {words}")


def of_system(path: Path, error: OSError) -> JournalError:
    """Translate an error of the system about the journal at `path`."""
    if error.errno in NO_ROOM:
        return JournalDiskFull(f"{path}: no room for the journal{_free(path)}; make room on that disk. {_KEPT}")
    if error.errno == errno.EROFS:
        return JournalDiskFails(
            f"{path}: the disk of the journal is read-only, as the system makes it after an error (see dmesg). "
            f"{_KEPT}. Check the disk, then make it writable again: mount -o remount,rw"
        )
    if error.errno == errno.EIO:
        return JournalDiskFails(
            f"{path}: the disk of the journal fails ({error.strerror}; see dmesg). What was being written does not "
            f"count and is looked up again. {_KEPT}; if it goes on, replace the disk and restore a backup"
        )
    return JournalError(
        f"{path}: the journal cannot be opened: {error.strerror}. The user that runs pix4d-watcher "
        f"must be able to write there; set `journal:` to a place of its own"
    )


def away(path: Path) -> JournalError:
    """Say that the journal at `path` was there a moment ago, and is not any more."""
    return JournalDiskFails(
        f"{path}: the journal was there a moment ago and is gone; is its disk unmounted to be checked? "
        f"{_KEPT}. Mount the disk again"
    )


_KEPT = "Nothing that was acknowledged is lost"


def _ask_disk(path: Path) -> int:
    """Write a little beside the journal and return the error's number, 0 where it can be written."""
    probe = path.with_name(path.name + ".probe")
    try:
        handle = os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(handle, bytes(PROBE))
            os.fsync(handle)
        finally:
            os.close(handle)
            with suppress(OSError):
                probe.unlink()
    except OSError as error:
        return error.errno or 0
    return 0


def _free(path: Path) -> str:
    try:
        facts = os.statvfs(path.parent)
    except OSError:
        return ""
    inodes = ", and no file more" if facts.f_files and not facts.f_favail else ""
    return f" ({path.parent}: {facts.f_bavail * facts.f_frsize / 1e6:.1f} MB free{inodes})"
