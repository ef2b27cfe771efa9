"""Room for the journal: the mark below which the service pauses, and a reserve beside it for when that came too late.

Owns the reserve's file. Decides nothing about what pauses. The pause comes first, while what is under way still fits;
the reserve is given up only when SQLite itself had no room: given up earlier, whoever fills the disk would take it.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger()

MARK = 16 << 20
"""Bytes that must be free. The largest single change, a folder of 10,000 images, was measured to take 4.5 MB in the
-wal and as much again in the database; a card of a small ground station has this many bytes to spare."""

RESERVE = 8 << 20
"""Bytes of the reserve. While the service pauses it writes a few rows only; the -wal grows to 4 MB before it starts
from its beginning again (1000 pages, SQLite's default), and the database with it."""

MORE = 8 << 20
"""Bytes above the mark before the pause ends: else every file that somebody writes would begin it anew."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class Room:
    """What there is around one journal; used by one thread."""

    def __init__(self, journal: Path) -> None:
        self._directory = journal.parent
        self._reserve = journal.with_name(journal.name + ".reserve")
        self._possible = True
        self._short = False

    def shortage(self) -> str:
        """Say why the journal has too little room, empty where it has enough; makes the reserve when there is room."""
        try:
            free, kept = self._free(), self._kept()
        except OSError as error:
            # It says nothing about room, and the journal itself meets it at its next write.
            log.debug("room not known", reason=str(error))
            return ""
        needed = MARK + (MORE if self._short else 0) + (0 if kept or not self._possible else RESERVE)
        text = self._text(free, needed) if free < needed else ""
        if not text and not kept and self._possible:
            text = self._make()
        self._short = bool(text)
        return text

    def fits(self, size: int) -> bool:
        """Whether a file of this size can be written beside the journal without taking its room."""
        try:
            return self._free() >= size + MARK
        except OSError:
            return False

    def release(self) -> bool:
        """Give the reserve up, so that the journal can be written; False where there was none."""
        try:
            self._reserve.unlink()
        except OSError:
            return False
        self._short = True
        log.warning("reserve used", file=self._reserve, text="the journal had no room; it is made again when there is")
        return True

    def _free(self) -> int:
        facts = os.statvfs(self._directory)
        return facts.f_bavail * facts.f_frsize

    def _kept(self) -> bool:
        try:
            return self._reserve.stat().st_size == RESERVE
        except FileNotFoundError:
            return False

    def _make(self) -> str:
        """Make the reserve; returns why there is no room for it.

        More is taken at first than is kept: only that shows what a quota leaves, which no count of free bytes does.
        """
        try:
            handle = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(handle, 0, RESERVE + MARK)
                os.ftruncate(handle, RESERVE)
            except OSError:
                self._reserve.unlink()
                raise
            finally:
                os.close(handle)
        except OSError as error:
            if error.errno in _NO_ROOM:
                return self._text(None, RESERVE + MARK)
            self._possible = False
            log.warning("no reserve", file=self._reserve, reason=str(error), text="the journal is kept without it")
        return ""

    def _text(self, free: int | None, needed: int) -> str:
        there = "its user's quota is used up" if free is None else f"{free / 1e6:.1f} MB are free"
        return (
            f"{self._directory}: the disk of the journal is almost full: {there}, {needed / 1e6:.1f} MB are needed. "
            f"Make room there; nothing new is begun until then, and it goes on by itself"
        )
