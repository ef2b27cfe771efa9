"""Verbs about folders that are one mission: joined, joined later, renamed, on their own again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, select, update

from pix4d_watcher.core.model import Condition, State, printable, unprintable
from pix4d_watcher.journal import records, tables
from pix4d_watcher.journal.change import execute_many, tell, update_one
from pix4d_watcher.journal.folders import nothing_asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project

_P, _I = tables.projects.c, tables.images.c


def members_of(project: Project) -> tuple[bytes, ...]:
    """Return the names on disk of the folders that a project joins; nothing for a single folder."""
    return tuple(unprintable(name) for name in project.members or ())


def joining(connection: Connection, reference: str) -> list[Project]:
    """List the projects that join the folder that people call `root/folder` or `folder`."""
    query = select(tables.projects).where(_P.members.is_not(None)).order_by(_P.id)
    found = [records.project(row) for row in connection.execute(query).mappings()]
    return [
        project
        for project in found
        if any(reference in (member, f"{project.root}/{member}") for member in project.members or ())
    ]


def joined(
    journal: Journal, project_id: int, *, name: bytes, members: Sequence[bytes], absorbed: Sequence[int]
) -> None:
    """Make a mission of a folder that was not complete yet; `absorbed` are the projects of others that join it.

    Raises Stale when the cloud was asked for one of them meanwhile.
    """
    shown = ", ".join(printable(member) for member in members)
    with journal.write() as connection:
        row = connection.execute(select(tables.projects).where(_P.id == project_id)).mappings().one()
        rounds = connection.execute(
            select(_P.round).where(_P.root == row["root"], _P.folder == name, _P.id != project_id)
        ).scalars()
        taken = set(rounds)
        number = max(taken) + 1 if row["round"] in taken else row["round"]
        _before_create(connection, project_id, folder=name, round=number, members=[printable(one) for one in members])
        tell(connection, project_id, "joined", f"{printable(name)} joins {shown}")
        _absorb(connection, absorbed, name)


def members_changed(
    journal: Journal, ids: Sequence[int], *, members: Sequence[bytes], absorbed: Sequence[int] = ()
) -> None:
    """Record which folders a mission joins now, in all its parts."""
    shown = ", ".join(printable(member) for member in members)
    with journal.write() as connection:
        for project_id in ids:
            update_one(connection, tables.projects, _P.id == project_id, members=[printable(one) for one in members])
            tell(connection, project_id, "joined", f"joins {shown}")
        name = connection.execute(select(_P.folder).where(_P.id == ids[0])).scalar_one()
        _absorb(connection, absorbed, name)


def dissolved(journal: Journal, project_id: int) -> None:
    """Make a single folder again of a mission whose other folders do not join it any more, before it was frozen."""
    with journal.write() as connection:
        _before_create(connection, project_id, members=None)
        tell(connection, project_id, "joined", "joins no other folder any more")


def member_renamed(journal: Journal, ids: Sequence[int], *, members: Sequence[bytes], old: bytes, new: bytes) -> None:
    """Follow a folder of a mission to its new name: its images keep their keys and lie under the new path."""
    names = [printable(new if member == old else member) for member in members]
    with journal.write() as connection:
        paths = select(_I.id, _I.path).where(_I.project_id.in_(ids), *_below(old))
        moved = [{"this": row.id, "to": new + row.path[len(old) :]} for row in connection.execute(paths).all()]
        move = update(tables.images).where(_I.id == bindparam("this")).values(path=bindparam("to"))
        execute_many(connection, move, moved)
        for project_id in ids:
            update_one(connection, tables.projects, _P.id == project_id, members=names)
            tell(connection, project_id, "renamed", f"{printable(old)} is now called {printable(new)}")


def has_images(journal: Journal, ids: Sequence[int], members: Sequence[bytes]) -> bool:
    """Say whether an image of a mission was frozen in one of these folders."""
    with journal.read() as connection:
        found = (select(_I.id).where(_I.project_id.in_(ids), *_below(member)).limit(1) for member in members)
        return any(connection.execute(query).first() is not None for query in found)


def _below(member: bytes) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    # "0" is the character after "/": all that lies below, by the index on the path.
    return _I.path > member + b"/", _I.path < member + b"0"


def _before_create(connection: Connection, project_id: int, **values: object) -> None:
    nothing_asked(connection, project_id)
    settling = _P.state.in_([State.FOUND, State.SETTLED])
    update_one(connection, tables.projects, _P.id == project_id, settling, **values)


def _absorb(connection: Connection, ids: Sequence[int], mission: bytes) -> None:
    for project_id in ids:
        given_up = {"condition": Condition.DROPPED, "hold_code": None, "hold_text": None, "waiting_for": None}
        _before_create(connection, project_id, present=False, **given_up)
        tell(connection, project_id, "dropped", f"it became a part of {printable(mission)}")
