"""One look at everything that `status` shows: projects, drop directories, and the service itself.

Reads the journal, /proc/locks and the clock, once; decides and formats nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pix4d_watcher.host.lock import holder, lock_path

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from pix4d_watcher.config import RootSettings, Settings
    from pix4d_watcher.core.model import Condition, State
    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.listing import Selection
    from pix4d_watcher.journal.records import Root

FRESH = 30.0
"""Seconds for which the service's word counts; it gives a sign of life every few seconds."""

AT_ONCE = 5000
"""Projects read by one question."""


@dataclass(frozen=True)
class Picture:
    """What was seen at `now` (seconds since 1970). `projects` are those of `status --json`.

    `holder` is the process that holds the service's lock, None where nobody does. `vitals` are what the service said
    of itself last, `throughput` (bytes a second) and `in_flight` (bytes by project id) only while they are fresh.
    `hidden` counts the finished projects that are left out, `sorts` all there are by condition, state and pause;
    `filtered`: only some were asked for.
    `hook_troubles` are titles of projects with what their commands failed of; `restored`: the journal was restored and
    is not compared with the cloud yet.
    """

    now: float
    projects: list[dict[str, Any]] = field(default_factory=list)
    roots: list[Root] = field(default_factory=list)
    vitals: dict[str, Any] = field(default_factory=dict)
    holder: int | None = None
    paused_all: bool = False
    hidden: int = 0
    filtered: bool = False
    sorts: list[tuple[Condition, State, bool, int]] = field(default_factory=list)
    hook_troubles: list[tuple[str, str]] = field(default_factory=list)
    restored: bool = False

    @property
    def running(self) -> bool:
        """Whether the service runs: it holds its lock, or gave a sign of life where locks cannot be seen."""
        return self.holder is not None

    @property
    def pause(self) -> dict[str, Any] | None:
        """What the running service waits for by itself: kind, text, since (seconds since 1970); None for nothing."""
        return self.vitals.get("pause") if self.running else None

    @property
    def silent(self) -> float:
        """Seconds since the service's last sign of life."""
        return max(0.0, self.now - float(self.vitals.get("at") or 0.0))

    @property
    def throughput(self) -> float:
        """Bytes a second that leave now; 0 where it is not known."""
        return float(self.vitals.get("throughput") or 0.0) if self._is_fresh else 0.0

    @property
    def in_flight(self) -> dict[str, int]:
        """Bytes of images under way by project id, as text."""
        return dict(self.vitals.get("in_flight") or {}) if self._is_fresh else {}

    @property
    def _is_fresh(self) -> bool:
        return self.running and self.silent < FRESH


def look(
    settings: Settings, journal: Journal | None, ids: Collection[int] | None = None, selection: Selection | None = None
) -> Picture:
    """Take a picture of the projects `ids`, of a `selection`, or of all; an empty one where there is no journal yet."""
    now = time.time()
    if journal is None:
        return Picture(now, holder=_holder_of(lock_path(settings.journal), {}, now))
    from pix4d_watcher.journal import outbox, service, views  # noqa: PLC0415  (no journal: nothing to import for)

    if selection is not None:
        ids = selection.ids
    vitals = service.get(journal, service.VITALS, {})
    seen = {root.name: root for root in views.all_roots(journal)}
    return Picture(
        now,
        projects=_projects(journal, ids),
        hidden=selection.hidden if selection else 0,
        filtered=selection.filtered if selection else False,
        sorts=selection.sorts if selection else [],
        hook_troubles=[
            (views.project(journal, post.project_id).title, post.error or "") for post in outbox.troubles(journal)[-3:]
        ],
        restored=not service.get(journal, service.RESTORED, {}).get("compared", True),
        roots=[seen.get(root.name) or _unseen(root) for root in settings.watch],
        vitals=vitals,
        holder=_holder_of(lock_path(settings.journal), vitals, now),
        paused_all=bool(service.get(journal, service.PAUSED_ALL, default=False)),
    )


def _unseen(root: RootSettings) -> Root:
    """Describe a drop directory that the service never could look into; the journal has no row of it."""
    from pix4d_watcher.journal.records import Root  # noqa: PLC0415

    text = f"never seen yet: {root.path}; to see why: pix4d-watcher check-config"
    return Root(root.name, bytes(root.path), 0, 0, 0.0, 0.0, present=False, problem=text, watching="", loose=0)


def _projects(journal: Journal, ids: Collection[int] | None) -> list[dict[str, Any]]:
    """Read the projects in the order of `ids`, some at a time: a question has room for only so many numbers."""
    from pix4d_watcher.journal import views  # noqa: PLC0415

    if ids is None:
        return views.status(journal)
    wanted = list(ids)
    parts = [wanted[start : start + AT_ONCE] for start in range(0, len(wanted), AT_ONCE)]
    found = {row["id"]: row for part in parts for row in views.status(journal, part)}
    return [found[number] for number in wanted if number in found]


def _holder_of(file: Path, vitals: dict[str, Any], now: float) -> int | None:
    """Name the process that holds the service's lock; where the kernel does not tell, a fresh sign of life decides."""
    try:
        return holder(file)
    except OSError:
        return int(vitals["pid"]) if now - float(vitals.get("at") or 0.0) < FRESH else None
