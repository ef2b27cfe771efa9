"""The journal and the service that works on it: sound, private, with room, backed up, alive. Never makes a journal."""

from __future__ import annotations

import os
import shlex
import stat
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import JournalError, JournalTooNew
from pix4d_watcher.core.machine import PAUSES
from pix4d_watcher.core.model import Condition
from pix4d_watcher.doctor import places
from pix4d_watcher.doctor.findings import Cause, Finding, fail, failed, ok, warn
from pix4d_watcher.host import lock, mounts, room
from pix4d_watcher.journal import database, listing, outbox, service, views

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pix4d_watcher.config import Settings
    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project, Root

SILENT = 30.0
"""Seconds without a sign of life after which a running service counts as hung; it gives one every 10 seconds."""

OLD_BACKUP = 3 * 24 * 3600.0
"""Seconds: the service makes a copy at its start and then daily."""

_HOLDS = "see what each says: pix4d-watcher status"


def holder(settings: Settings) -> int | None:
    """Return the process that works on the journal, None for none and where the kernel does not tell."""
    try:
        return lock.holder(lock.lock_path(settings.journal))
    except OSError:
        return None


def last_known(settings: Settings) -> tuple[Project | None, dict[str, Root]]:
    """Read what other checks need: the newest project in the cloud, and the drop directories as last scanned."""
    try:
        with _opened(settings.journal) as journal:
            if journal is None:
                return None, {}
            found = [views.project(journal, number) for number in listing.newest_in_cloud(journal)]
            return (found[0] if found else None), {root.name: root for root in views.all_roots(journal)}
    except (JournalError, OSError):
        return None, {}  # the journal's own check says why


def journal(settings: Settings) -> Iterator[Finding]:
    """Look at the journal's place and at the journal itself."""
    path = settings.journal
    yield from _place(path)
    try:
        with _opened(path) as opened:
            if opened is None:
                yield ok("journal", f"{path} is not there yet; the first start makes it")
                return
            yield from _modes(path)
            yield from _content(path, opened, running=holder(settings) is not None)
    except JournalTooNew as error:
        yield failed("journal", error, "install that version again: pip install --upgrade pix4d-watcher")
    except JournalError as error:
        yield failed("journal", error, _mending(settings, str(error)))


def condition(settings: Settings) -> Iterator[Finding]:
    """Say whether the service runs and lives, what stops it, and how many folders wait for a person."""
    number = holder(settings)
    if number is None:
        start = "start it: sudo systemctl start pix4d-watcher, or pix4d-watcher run"
        yield warn("service", "it is not running, so nothing moves", start)
    with _opened(settings.journal) as opened:
        if opened is None:
            return
        if number is not None:
            yield from _alive(number, service.get(opened, service.VITALS, {}))
        if service.get(opened, service.PAUSED_ALL, default=False):
            yield warn("pause", "everything is paused by a person", "to go on: pix4d-watcher resume --all")
        counts: Counter[str] = Counter()
        for what, _state, paused, count in listing.select_shown(opened, listing.EVERYTHING, 0).sorts:
            counts["held"] += count * (what is Condition.HELD)
            counts["paused"] += count * (what is Condition.ACTIVE and paused)
        if counts["held"]:
            yield warn("folders", f"{counts['held']} held, {counts['paused']} paused", _HOLDS)
        else:
            yield ok("folders", f"none is held, {counts['paused']} paused")
        for title, error in [(post.project_id, post.error) for post in outbox.troubles(opened)[-3:]]:
            text = f"{views.project(opened, title).title}: {error}"
            yield warn("hooks", text, "try the command by hand; it is run again by itself")


def _alive(number: int, vitals: dict[str, object]) -> Iterator[Finding]:
    silent = time.time() - float(str(vitals.get("at") or 0.0))
    if vitals.get("pid") == number and silent > SILENT:
        text = f"process {number} has not given a sign of life for {silent:.0f} s"
        yield fail("service", text, "start it anew: sudo systemctl restart pix4d-watcher; it goes on where it was")
        return
    yield ok("service", f"it is running, process {number}")
    pause = vitals.get("pause")
    if isinstance(pause, dict):
        text = f"it waits for {PAUSES.get(pause.get('kind', ''), 'the cloud')}: {pause.get('text')}"
        yield warn("pause", text, "mend that; the service goes on by itself")


def _place(path: Path) -> Iterator[Finding]:
    place = next(place for place in (path.parent, *path.parent.parents) if place.is_dir())
    if mounts.is_network(bytes(place)):
        text = f"{place} is on {mounts.filesystem_type(bytes(place))}, where locks and flushes cannot be trusted"
        yield fail("journal directory", text, "set `journal:` to a local disk", Cause.CONFIGURATION)
        return
    yield from places.target("journal directory", path.parent, reserve=room.MARK)


def _modes(path: Path) -> Iterator[Finding]:
    """Look for what others could read: the journal holds names of customers, and no secret."""
    own = [path.with_name(path.name + end) for end in ("", "-wal", "-shm", ".backup", ".reserve", ".lock")]
    loose = [place for place in (path.parent, *own) if place.exists() and stat.S_IMODE(place.stat().st_mode) & 0o077]
    if loose:
        names = " ".join(shlex.quote(str(place)) for place in loose)
        yield warn("journal permissions", f"others may read {', '.join(map(str, loose))}", f"chmod go= {names}")
    else:
        yield ok("journal permissions", "nobody else may read it")


def _content(path: Path, opened: Journal, *, running: bool) -> Iterator[Finding]:
    begun = time.monotonic()
    database.check(opened)
    took = time.monotonic() - begun
    size = path.stat().st_size / 1e6
    text = f"{path} is sound: schema {database.SCHEMA}, {listing.how_many(opened)} projects, {size:.1f} MB"
    yield ok("journal", f"{text}, checked in {took:.1f} s")
    if service.get(opened, service.RUNNING, default=False) and not running:
        text = "the last run did not end by itself (power cut, kill or crash)"
        yield warn(
            "journal", text, "nothing to do: it is checked at the next start; journalctl -u pix4d-watcher says more"
        )
    if not service.get(opened, service.RESTORED, {}).get("compared", True):
        text = "it was restored, and nothing is sent until it is compared with the cloud"
        yield warn("journal", text, "start the service; it compares by itself")
    yield from _backup(path)


def _backup(path: Path) -> Iterator[Finding]:
    copy = database.backup_path(path)
    keep = "make one now: pix4d-watcher backup FILE"
    if not copy.exists():
        yield warn("backup", "there is none yet; a running service makes one a day", keep)
        return
    age = time.time() - copy.stat().st_mtime
    text = f"{copy}, {age / 86400:.0f} days old" if age > OLD_BACKUP else f"{copy}, {max(0.0, age) / 3600:.0f} h old"
    yield warn("backup", text, keep) if age > OLD_BACKUP else ok("backup", text)


def _mending(settings: Settings, text: str) -> str:
    if isinstance(text, str) and "older version" in text:
        return "start the service once: sudo systemctl start pix4d-watcher"
    copy = database.backup_path(settings.journal)
    if "damaged" in text or "no journal" in text:
        return f"stop the service, then: pix4d-watcher restore {shlex.quote(str(copy))}"
    return f"look at the disk: df -h {shlex.quote(str(settings.journal.parent))}; sudo dmesg"


@contextmanager
def _opened(path: Path) -> Iterator[Journal | None]:
    """Open the journal for looking only; raises JournalError, and PermissionError where this user may not."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    if not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(13, "this user may not use the journal", str(path))
    opened = database.open_to_read(path)
    try:
        yield opened
    finally:
        if opened is not None:
            opened.close()
