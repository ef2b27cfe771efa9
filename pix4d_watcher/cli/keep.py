"""`backup FILE` and `restore FILE`: a copy of the journal while the service runs, and the way back from it.

Owns what is refused and what is said; how files get their places stands in `journal`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pix4d_watcher.cli import journals, out, words
from pix4d_watcher.cli.exits import Misused
from pix4d_watcher.core.errors import JournalError

if TYPE_CHECKING:
    from pathlib import Path

    from pix4d_watcher.config import Settings
    from pix4d_watcher.journal.database import Journal


def backup(settings: Settings, file: Path) -> None:
    """Copy the journal to `file` while it is in use, and say what is in it; raises Misused and JournalError."""
    from pix4d_watcher.journal import database, listing, restoring  # noqa: PLC0415

    with journals.journal_to_read(settings) as journal:
        if journal is None:
            raise Misused("there is no journal yet, so there is nothing to keep: the service has not run")
        if file.is_dir():
            raise Misused(f"{file}: this is a directory; name a file in it")
        if _is_beside(file, settings.journal):
            raise Misused(f"{file}: this is the journal itself, or a part of it; name another file for its backup")
        if file.exists() and file.stat().st_size and not _begins_with(file, restoring.HEADER):
            raise Misused(f"{file}: there is another file of this name, and it is no backup; it is left as it is")
        if not file.parent.is_dir():
            raise Misused(f"{file}: there is no directory {file.parent}")
        database.backup(journal, file)
        count = listing.how_many(journal)
    out.write(f"{file}: {words.size(file.stat().st_size)}, {words.number(count, 'project')}\n")


def restore(settings: Settings, file: Path, *, force: bool) -> None:
    """Put a backup in the journal's place; raises AlreadyRunning while the service runs, Misused and JournalError."""
    from pix4d_watcher.host import lock  # noqa: PLC0415
    from pix4d_watcher.journal import listing, restored, restoring  # noqa: PLC0415

    if not file.is_file():
        raise Misused(f"{file}: there is no such file")
    if not _begins_with(file, restoring.HEADER):
        raise Misused(f"{file}: this is no backup of a journal")
    names = [root.name for root in settings.watch]
    counted = 0

    def prepare(journal: Journal) -> None:
        nonlocal counted
        _is_ours(journal, file, names, force=force)
        counted = listing.how_many(journal)
        restored.mark(journal, names)

    settings.journal.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock.hold(lock.lock_path(settings.journal)):
        kept = restoring.restore(settings.journal, file, prepare)
    out.write(f"{settings.journal}: restored, {words.number(counted, 'project')}\n")
    if kept is not None:
        out.write(f"the journal that it replaces is kept as {kept}\n")
    out.write("at its next start the service compares it with the cloud before anything is sent\n")


def _is_ours(journal: Journal, file: Path, names: list[str], *, force: bool) -> None:
    from pix4d_watcher.journal import listing, views  # noqa: PLC0415

    known = [root.name for root in views.all_roots(journal)]
    if not known and not listing.how_many(journal):
        raise JournalError(f"{file}: nothing is in it: no drop directory and no project; there is nothing to restore")
    if known and not set(known) & set(names) and not force:
        raise Misused(
            f"{file}: it knows the drop directories {', '.join(known)} and none of this configuration; it seems to be "
            f"the backup of another service. If it is the right one all the same: restore --force"
        )


def _is_beside(file: Path, journal: Path) -> bool:
    own = [journal.with_name(journal.name + suffix) for suffix in ("", "-wal", "-shm", ".lock")]
    there = [one for one in own if one.exists()] if file.exists() else []
    return file.resolve() in [one.resolve() for one in own] or any(file.samefile(one) for one in there)


def _begins_with(file: Path, header: bytes) -> bool:
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, len(header)) == header
    finally:
        os.close(handle)
