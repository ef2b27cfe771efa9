"""Verbs and questions about what becomes of a delivered folder: archived, deleted, or kept after all.

`put_away` is null while nothing was done; while it is under way it holds the plan, so that a crash in its middle is
continued; at the end it says what became of the folder. Touches no files.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, or_, select, update

from pix4d_watcher.core.model import Condition, State, printable, unprintable
from pix4d_watcher.journal import records, tables
from pix4d_watcher.journal.change import now, tell, update_one

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project

_P = tables.projects.c

ARCHIVED, DELETED, KEPT = "archived", "deleted", "kept"
"""What became of a folder. Kept: it could not be put away; it is not tried again until a person says `retry`."""

_ARCHIVING, _DELETING = "archiving ", "deleting "
_UNDER_WAY = or_(_P.put_away.startswith(_ARCHIVING), _P.put_away.startswith(_DELETING))
_DONE_AND_FREE = (_P.state == State.DELIVERED, _P.condition == Condition.ACTIVE, ~_P.paused)


def due(journal: Journal, root: str, *, retention: float, horizon: float) -> list[Project]:
    """List the delivered projects of a drop directory whose retention (seconds) is over or not begun, oldest first.

    Those whose folder is gone are left out, unless it went while it was put away. A due time more than `horizon`
    seconds ahead is due now: the wall clock jumped.
    """
    here = or_(and_(_P.present, _P.put_away.is_(None)), _UNDER_WAY)
    over = or_(_P.kept_since.is_(None), _P.delivered_at <= now() - retention)
    query = (
        select(tables.projects)
        .where(_P.root == root, *_DONE_AND_FREE, here, over, _when(horizon))
        .order_by(_P.delivered_at, _P.id)
    )
    with journal.read() as connection:
        return [records.project(row) for row in connection.execute(query).mappings()]


def sharing(journal: Journal, project: Project) -> list[Project]:
    """List all projects that a project's folders belong to now, itself too: parts of a split folder, joined folders.

    One whose folder went while it was put away shares nothing with what came under its name since.
    """
    own, there = _folders(project), _P.present if project.present else and_(~_P.present, _UNDER_WAY)
    named = or_(_P.folder.in_([unprintable(name) for name in own]), _P.members.is_not(None))
    query = select(tables.projects).where(_P.root == project.root, there, named).order_by(_P.id)
    with journal.read() as connection:
        rows = [records.project(row) for row in connection.execute(query).mappings()]
    return [row for row in rows if row.condition is not Condition.DROPPED and _folders(row) & own]


def archiving(names: Sequence[bytes]) -> str:
    """Write the plan to move the folders of a project, in their order, to these names in the archive."""
    return _ARCHIVING + json.dumps([printable(name) for name in names])


def deleting() -> str:
    """Write the plan to delete the registered images of a project."""
    return _DELETING


def planned_names(project: Project) -> list[bytes] | None:
    """Read the names in the archive back from the plan; None where none is under way."""
    plan = project.put_away or ""
    return [unprintable(name) for name in json.loads(plan[len(_ARCHIVING) :])] if plan.startswith(_ARCHIVING) else None


def is_under_way(project: Project) -> bool:
    """Say whether the folder is being put away, or was when the service ended."""
    return (project.put_away or "").startswith((_ARCHIVING, _DELETING))


def is_awaited(project: Project) -> bool:
    """Say whether anything is still to be tried with the folder of a delivered project, or was given up."""
    return project.put_away == KEPT or is_under_way(project) or project.due_at is not None


def counted_from(journal: Journal, project: Project, cloud_now: float) -> None:
    """Begin the retention of a delivered project at this time of the cloud's clock (s since 1970); it begins once."""
    fresh = (_P.id == project.id, *_DONE_AND_FREE, _P.kept_since.is_(None))
    with journal.write() as connection:
        update_one(connection, tables.projects, *fresh, kept_since=cloud_now, tries=0, due_at=None, waiting_for=None)


def begun(journal: Journal, projects: Sequence[Project], plan: str) -> None:
    """Write the plan before the first file is touched; raises Stale when one of the projects was held or went on."""
    with journal.write() as connection:
        for project in projects:
            same = _P.put_away.is_not_distinct_from(project.put_away)
            update_one(connection, tables.projects, _P.id == project.id, *_DONE_AND_FREE, same, put_away=plan)


def finished(journal: Journal, projects: Sequence[Project], how: str, text: str, *, gone: bool) -> None:
    """Record what became of the folder; `gone`: nothing of it is left in the drop directory, and that is no trouble."""
    away = {"present": False} if gone else {}
    _end(journal, projects, how, text, **away, waiting_for=None)


def kept(journal: Journal, projects: Sequence[Project], text: str) -> None:
    """Record that a folder cannot be put away and stays as it is, until a person says `retry`."""
    _end(journal, projects, KEPT, text, waiting_for=f"the folder is kept: {text}")


def later(journal: Journal, project: Project, why: str, *, due_at: float, counts: bool = False) -> int:
    """Say why a folder is not put away yet and when that is looked at again; returns the failed tries.

    `counts`: it was a failure, and not only too early.
    """
    tries = project.tries + 1 if counts else project.tries
    with journal.write() as connection:
        still = (_P.id == project.id, *_DONE_AND_FREE)
        connection.execute(update(tables.projects).where(*still).values(waiting_for=why, due_at=due_at, tries=tries))
        if project.waiting_for != why:
            tell(connection, project.id, "afterwards", why)
    return tries


def look_again(connection: Connection, project_id: int) -> None:
    """Forget, inside the transaction of `retry`, that a folder could not be put away."""
    given_up = (_P.id == project_id, _P.put_away == KEPT)
    connection.execute(update(tables.projects).where(*given_up).values(put_away=None, waiting_for=None))


def _end(journal: Journal, projects: Sequence[Project], how: str, text: str, **values: Any) -> None:
    with journal.write() as connection:
        for project in projects:
            facts = {"put_away": how, "due_at": None, "tries": 0, "error": None, **values}
            update_one(connection, tables.projects, _P.id == project.id, _P.state == State.DELIVERED, **facts)
            tell(connection, project.id, how, text)


def _when(horizon: float) -> ColumnElement[bool]:
    return or_(_P.due_at.is_(None), _P.due_at <= now(), _P.due_at > now() + horizon)


def _folders(project: Project) -> frozenset[str]:
    return frozenset(project.members or [printable(project.folder)])
