"""Puts a backup in the place of the journal, so that at every moment one whole journal has that name.

The caller holds the service's lock. The replaced journal is kept. What the restored one needs to know of itself is
written into it before it gets its name, see `restored.py`.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import JournalError
from pix4d_watcher.journal import database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pix4d_watcher.journal.database import Journal

HEADER = b"SQLite format 3\0"
"""How each file of SQLite begins; an empty file would be made into a new journal without a word."""

_BESIDE = ("", "-wal", "-shm")


def restore(path: Path, backup: Path, prepare: Callable[[Journal], None]) -> Path | None:
    """Make a copy of `backup` the journal at `path`; returns where the replaced one is kept, None where there was none.

    The copy is checked and brought up to date first, and `prepare` writes into it. Raises JournalError, JournalTooNew,
    and what `prepare` raises; the journal is then as it was, and so is the backup always.
    """
    if backup.resolve() == path.resolve():
        raise JournalError(f"{backup}: this is the journal itself; name a backup of it")
    work = path.with_name(path.name + ".restoring")
    try:
        _clean(work)
        _copy(backup, work)
        with closing(_opened(work, backup)) as journal:
            database.check(journal)
            prepare(journal)
        kept = _keep(path)
        _own(work, like=path if path.exists() else path.parent)
        work.replace(path)
        database.flush(path.parent)
    except OSError as error:
        raise JournalError(f"{backup}: it cannot be restored: {error.filename}: {error.strerror}") from error
    finally:
        _clean(work)
    return kept


def _copy(backup: Path, work: Path) -> None:
    with backup.open("rb") as file:
        if file.read(len(HEADER)) != HEADER:
            raise JournalError(f"{backup}: this is no backup of a journal")
    os.close(os.open(work, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    shutil.copyfile(backup, work)
    wal = backup.with_name(backup.name + "-wal")
    if wal.exists():  # the backup is a journal that was copied as it stood
        shutil.copyfile(wal, work.with_name(work.name + "-wal"))


def _opened(work: Path, backup: Path) -> Journal:
    try:
        return database.open_journal(work)
    except JournalError as error:
        raise type(error)(str(error).replace(str(work), str(backup))) from error


def _keep(path: Path) -> Path | None:
    """Copy the journal that is replaced to a name of its own, as it stands, sound or not; then its -wal is worked in.

    A -wal that stayed would spoil the other file, and without it the old one would be a journal of some time ago.
    """
    if not path.exists():
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S")
    kept = path.with_name(f"{path.name}.before-restore-{stamp}")
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.before-restore-{stamp}-{number}")
    with ExitStack() as unless_whole:
        unless_whole.callback(_clean, kept)
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copy2(path.with_name(path.name + suffix), kept.with_name(kept.name + suffix))
                database.flush(kept.with_name(kept.name + suffix))
        unless_whole.pop_all()
    database.flush(path.parent)
    with suppress(JournalError):
        database.open_journal(path).close()
    for suffix in _BESIDE[1:]:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return kept


def _own(work: Path, *, like: Path) -> None:
    """Give the journal to the user whose service uses it: a restore is often typed by root."""
    facts = like.stat()
    if os.geteuid() == 0:
        os.chown(work, facts.st_uid, facts.st_gid)
    database.flush(work)


def _clean(work: Path) -> None:
    for suffix in (*_BESIDE, f".before-{database.SCHEMA}"):
        work.with_name(work.name + suffix).unlink(missing_ok=True)
