"""What was sent before: in which other projects images of the same content are, or are about to be.

Only reads. Contents are told by their SHA-256, whatever the folder, its drop directory and the names in it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import and_, exists, or_, select

from pix4d_watcher.core.machine import HOLDS
from pix4d_watcher.core.model import Condition, EffectKind, EffectStatus, ImageStatus, State, round_name
from pix4d_watcher.journal import records, tables
from pix4d_watcher.journal.change import ROWS_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import Connection

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project

_P, _I, _E = tables.projects.c, tables.images.c, tables.effects.c
_CREATING = exists().where(_E.project_id == _P.id, _E.kind == EffectKind.CREATE, _E.status == EffectStatus.OPEN)
# Checked and not stopped, or by nothing that a person must lift: two copies of a card may come at the same time.
_GOES_ON = [code for code, hold in HOLDS.items() if hold.by_itself]
_BY_ITSELF = or_(_P.condition == Condition.ACTIVE, and_(_P.condition == Condition.HELD, _P.hold_code.in_(_GOES_ON)))
_ABOUT_TO = and_(_P.state == State.SETTLED, _BY_ITSELF, _P.report.is_not(None))
_TO_SEND = _I.status != ImageStatus.SKIPPED
_SENT = or_(_P.remote_id.is_not(None), _CREATING, _ABOUT_TO)


@dataclass(frozen=True, slots=True)
class Sent:
    """A project in which images were sent before; `hashes` are those of the images asked about that it holds.

    `at` is when it was created, in seconds since 1970; `remote_id` is None while the cloud has not said its number.
    """

    title: str
    remote_id: int | None
    at: float
    hashes: frozenset[bytes]


def content_set(hashes: Iterable[bytes]) -> bytes:
    """Return the digest that stands for a set of images: the SHA-256 over their SHA-256 in order."""
    return hashlib.sha256(b"".join(sorted(set(hashes)))).digest()


def sent_elsewhere(journal: Journal, project_id: int, hashes: Collection[bytes]) -> list[Sent]:
    """List the other projects that were created, or are about to be, with any of these images; the oldest first."""
    found: dict[int, set[bytes]] = {}
    wanted = list(hashes)
    with journal.read() as connection:
        for start in range(0, len(wanted), ROWS_AT_ONCE):
            some = wanted[start : start + ROWS_AT_ONCE]
            query = select(_I.project_id, _I.sha256).where(_I.sha256.in_(some), _I.project_id != project_id, _TO_SEND)
            for row in connection.execute(query):
                found.setdefault(row.project_id, set()).add(row.sha256)
        projects = _sent_among(connection, list(found))
    return [
        Sent(project.title, project.remote_id, project.created_at or project.found_at, frozenset(found[project.id]))
        for project in projects
    ]


def known_sizes(journal: Journal, sizes: Iterable[int]) -> set[int]:
    """Say which of these sizes (bytes) images of the journal have: none of another size can have been sent before."""
    wanted, found = list(sizes), set[int]()
    with journal.read() as connection:
        for start in range(0, len(wanted), ROWS_AT_ONCE):
            query = select(_I.size).where(_I.size.in_(wanted[start : start + ROWS_AT_ONCE])).distinct()
            found.update(connection.execute(query).scalars())
    return found


def same_set(connection: Connection, project_id: int, content: bytes) -> bool:
    """Say whether another project was sent, or is about to be, with just these images."""
    query = select(_P.id).where(_P.content_set == content, _P.id != project_id, _SENT)
    # What was noted at its check only finds it: images may have been taken out or exchanged since.
    return any(
        content_set(connection.execute(select(_I.sha256).where(_I.project_id == other, _TO_SEND)).scalars()) == content
        for other in connection.execute(query).scalars().all()
    )


def delivered(journal: Journal) -> list[tuple[str, bytes]]:
    """List drop directory and place of the results of every project whose results lie complete on our disk."""
    with journal.read() as connection:
        query = select(_P.root, _P.folder, _P.round, _P.results_folder).where(_P.state == State.DELIVERED)
        rows = connection.execute(query)
        return [(row.root, row.results_folder or round_name(row.folder, row.round)) for row in rows]


def _sent_among(connection: Connection, ids: list[int]) -> list[Project]:
    projects: list[Project] = []
    for start in range(0, len(ids), ROWS_AT_ONCE):
        query = select(tables.projects).where(_P.id.in_(ids[start : start + ROWS_AT_ONCE]), _SENT)
        projects += [records.project(row) for row in connection.execute(query).mappings()]
    return sorted(projects, key=lambda project: project.id)
