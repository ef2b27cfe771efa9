"""How people name projects, and which one they mean. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from pix4d_watcher.core.model import unprintable
from pix4d_watcher.journal import missions, records, tables

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project

_P = tables.projects.c

_NAMESAKES = tables.projects.alias()
NEWEST = (
    select(func.max(_NAMESAKES.c.round))
    .where(_NAMESAKES.c.root == _P.root, _NAMESAKES.c.folder == _P.folder)
    .scalar_subquery()
)
"""The number of the newest round of a project's name, beside each row of a query over projects."""


def title(journal: Journal, project: Project) -> str:
    """Name a project so that a command means just it: by its title, and a first round by `#1` where there are more."""
    with journal.read() as connection:
        newest = connection.execute(select(NEWEST).where(_P.id == project.id)).scalar_one()
    return project.numbered if newest > 1 else project.title


def find(journal: Journal, reference: str) -> list[Project]:
    """Find the projects that `root/folder`, `folder`, each with `#2` for a round, may mean; without a round the newest.

    The name of a folder that joined a mission means the mission. Names that are no UTF-8 are given with backslash
    escapes, as `status` shows them.
    """
    with journal.read() as connection:
        found = _matching(connection, reference)
        name, hash_sign, number = reference.rpartition("#")
        if not found and hash_sign and number.isdecimal():
            found = [candidate for candidate in _matching(connection, name) if candidate.round == int(number)]
        found = found or missions.joining(connection, reference.rstrip("/"))
    newest: dict[tuple[str, bytes], Project] = {}
    for candidate in found:
        key = (candidate.root, candidate.folder)
        if key not in newest or candidate.round > newest[key].round:
            newest[key] = candidate
    return list(newest.values())


def _matching(connection: Connection, reference: str) -> list[Project]:
    reference = reference.rstrip("/")
    root_name, _, folder = reference.partition("/")
    whole, below = unprintable(reference), unprintable(folder)
    query = select(tables.projects).where(_P.folder.in_([whole, below])).order_by(_P.id)
    candidates = [records.project(row) for row in connection.execute(query).mappings()]
    # The name of the root is compared here: what a shell hands over may be no text that a database takes.
    return [candidate for candidate in candidates if candidate.folder == whole or candidate.root == root_name]
