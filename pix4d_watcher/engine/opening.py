"""Opens the journal for the service, with patience where its disk does not take it yet.

Owns how long a start waits and what it gives up for it; what the errors mean stands in `journal/trouble.py`.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.errors import DiskFull, JournalDiskFails, JournalDiskFull
from pix4d_watcher.host import lock, logs, notify
from pix4d_watcher.journal import database, service, trouble

if TYPE_CHECKING:
    from pathlib import Path

    from pix4d_watcher.host.room import Room
    from pix4d_watcher.journal.database import Journal

log = structlog.get_logger()

WITHIN = 30.0
"""Seconds that a start waits for a disk that is full or read-only, so that systemd's restarts are no spin."""

AGAIN = 2.0
"""Seconds between two tries."""


def open_patiently(path: Path, room: Room, at_end: ExitStack) -> tuple[Journal, bool]:
    """Open the journal and note that the service runs; returns also whether the last run did not end by itself.

    `at_end` closes it and gives its lock back; neither is kept while this waits, so that the disk can be mounted anew.
    A journal that was there before is waited for then: one begun in the empty mount point would send everything again.
    Raises AlreadyRunning, HostError and JournalError, for a disk that does not take it after `WITHIN`.
    """
    end = time.monotonic() + WITHIN
    repeats = logs.Repeats(log)
    known = False
    while True:
        try:
            return _open(path, at_end, make=not known)
        except (JournalDiskFails, DiskFull) as error:
            if isinstance(error, JournalDiskFull) and room.release():
                continue
            known = known or not _is_gone(path)
            if time.monotonic() >= end:
                raise
            repeats.failed("journal", "journal not usable yet", reason=str(error), tried_for_seconds=round(WITHIN))
            notify.status(str(error))
        threading.Event().wait(AGAIN)


def _open(path: Path, at_end: ExitStack, *, make: bool) -> tuple[Journal, bool]:
    with ExitStack() as unless_usable:
        if not make and _is_gone(path):  # before the lock, whose file would stay behind in the mount point
            raise trouble.away(path)
        _make_directory(path)
        unless_usable.enter_context(lock.hold(lock.lock_path(path)))
        journal = database.open_journal(path, make=make)
        unless_usable.callback(journal.close)
        unclean = bool(service.get(journal, service.RUNNING, default=False))
        # Also a question: a full disk often lets a journal be opened and not be written.
        service.put(journal, service.RUNNING, value=True)
        at_end.push(unless_usable.pop_all())
    return journal, unclean


def _is_gone(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # a disk that fails says so when the journal is opened
    return False


def _make_directory(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise trouble.of_system(path, error) from error
