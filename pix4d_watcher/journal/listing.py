"""Which projects a look shows, and how many there are: quick with thousands of delivered ones. Reads only.

Nothing here touches an image: sums over the images are made for the projects that are shown, and for no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import and_, case, func, not_, or_, select

from pix4d_watcher.core.machine import with_name
from pix4d_watcher.core.model import Condition, State, printable
from pix4d_watcher.journal import tables

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project

_P, _EV = tables.projects.c, tables.events.c

_DONE = and_(_P.state == State.DELIVERED, _P.condition == Condition.ACTIVE)
_DROPPED = _P.condition == Condition.DROPPED
_FINISHED = or_(_DONE, _DROPPED)
_when = func.coalesce(_P.delivered_at, _P.found_at)

KINDS: dict[str, ColumnElement[bool]] = {
    "open": not_(_FINISHED),
    "held": _P.condition == Condition.HELD,
    "done": _DONE,
    "dropped": _DROPPED,
    **{str(state): _P.state == state for state in State if state is not State.DELIVERED},
    str(State.DELIVERED): _P.state == State.DELIVERED,
}
"""What projects can be asked for by; `open` is all that is neither done nor given up, so held ones, too."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which projects: of a drop directory, of a kind (see `KINDS`), not older or older than a moment (s since 1970).

    The moment of a project is its delivery, before that the drop of its folder.
    """

    root: str | None = None
    kind: str | None = None
    since: float | None = None
    until: float | None = None

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """What SQL asks for."""
        found: list[ColumnElement[bool]] = []
        if self.root is not None:
            found.append(_P.root == self.root)
        if self.kind is not None:
            found.append(KINDS[self.kind])
        if self.since is not None:
            found.append(_when >= self.since)
        if self.until is not None:
            found.append(_when <= self.until)
        return found


EVERYTHING = Wanted()


@dataclass(frozen=True, slots=True)
class Selection:
    """The projects that are shown, in their order, how many are left out, and how many there are of each sort.

    `sorts` counts by condition, state and whether it is paused; `filtered`: only some were wanted.
    """

    ids: list[int]
    hidden: int
    filtered: bool
    sorts: list[tuple[Condition, State, bool, int]]


def in_order(journal: Journal, wanted: Wanted) -> list[int]:
    """List the wanted projects, oldest first."""
    query = select(_P.id).where(*wanted.conditions).order_by(_P.found_at, _P.id)
    with journal.read() as connection:
        return list(connection.execute(query).scalars())


def select_shown(journal: Journal, wanted: Wanted, most: int | None) -> Selection:
    """Choose what a table shows: first all that is open or held, oldest first, then what was finished, newest first.

    With `most` only so many of the finished ones.
    """
    conditions = wanted.conditions
    still_open = select(_P.id).where(*conditions, not_(_FINISHED)).order_by(_P.found_at, _P.id)
    finished = select(_P.id).where(*conditions, _FINISHED).order_by(_when.desc(), _P.id.desc())
    count = func.count()
    sums = select(_P.condition, _P.state, _P.paused, count, func.sum(case((_FINISHED, 1), else_=0))).where(*conditions)
    sums = sums.group_by(_P.condition, _P.state, _P.paused).order_by(count.desc())
    with journal.read() as connection:
        ids = list(connection.execute(still_open).scalars())
        ids += connection.execute(finished if most is None else finished.limit(most)).scalars()
        rows = connection.execute(sums).all()
    sorts = [(Condition(row[0]), State(row[1]), bool(row[2]), int(row[3])) for row in rows]
    return Selection(ids, sum(number for *_sort, number in sorts) - len(ids), wanted != EVERYTHING, sorts)


def newest_in_cloud(journal: Journal) -> list[int]:
    """List the project that was created last in the cloud, alone; nothing where there is none."""
    query = select(_P.id).where(_P.remote_id.is_not(None)).order_by(_P.created_at.desc(), _P.id.desc()).limit(1)
    with journal.read() as connection:
        return list(connection.execute(query).scalars())


def how_many(journal: Journal) -> int:
    """Count all projects, every round of each folder."""
    with journal.read() as connection:
        return int(connection.execute(select(func.count()).select_from(tables.projects)).scalar() or 0)


def names(journal: Journal) -> dict[str, str]:
    """Map the name of each folder, as people see it, to its title with the drop directory."""
    query = select(_P.root, _P.folder).distinct().order_by(_P.folder)
    with journal.read() as connection:
        rows = connection.execute(query).all()
    return {printable(row.folder): f"{row.root}/{printable(row.folder)}" for row in rows}


def story(journal: Journal, project: Project, *, rounds: bool, most: int | None) -> list[tuple[float, int, str, str]]:
    """List what happened to a project, oldest first: when, its round, kind, text; with `rounds` to every round of it.

    With `most` only the last so many. Commands in the texts name the round that they are told of.
    """
    namesakes = and_(_P.root == project.root, _P.folder == project.folder)
    this = namesakes if rounds else _P.id == project.id
    query = (
        select(_EV.at, _P.round, _EV.kind, _EV.text)
        .join_from(tables.events, tables.projects, _EV.project_id == _P.id)
        .where(this)
        .order_by(_EV.id.desc())
        .limit(most)
    )
    with journal.read() as connection:
        rows = connection.execute(query).all()
        several = connection.execute(select(func.max(_P.round)).where(namesakes)).scalar_one() > 1
    folder = project.unnumbered
    names = {row.round: f"{folder}#{row.round}" if several else folder for row in rows}
    return [(row.at, row.round, row.kind, with_name(row.text, names[row.round])) for row in reversed(rows)]


def headline(journal: Journal) -> str:
    """Say in one line how many projects are where, for `systemctl status`."""
    query = select(_P.condition, _P.state, func.count()).group_by(_P.condition, _P.state)
    done = moving = held = 0
    with journal.read() as connection:
        for condition, state, count in connection.execute(query).all():
            if condition == Condition.HELD:
                held += count
            elif condition == Condition.ACTIVE and state == State.DELIVERED:
                done += count
            elif condition == Condition.ACTIVE:
                moving += count
    return f"{moving} under way, {held} held, {done} done"
