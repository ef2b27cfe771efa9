"""Rounds of a folder: how a project gets the number of its round, and how a folder is sent once more on purpose."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select

from pix4d_watcher.core.machine import HOLDS, SHOWN, before_create, with_name
from pix4d_watcher.core.model import Condition, HoldCode, State
from pix4d_watcher.journal import afterwards, orphans, records, tables
from pix4d_watcher.journal.change import Stale, inserted_id, now, tell, update_one
from pix4d_watcher.journal.people import Refusal

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project

_P = tables.projects.c

MARKER_BYTES = 6
"""48 random bits: with a million projects the chance of two equal markers is below one in five hundred; the unique
index turns that case into another try."""

ENDED = (HoldCode.CLOUD_FAILED, HoldCode.CLOUD_REFUSED, HoldCode.TRIES_EXHAUSTED, HoldCode.INPUTS_DIFFER)
"""Holds after which a person may rather begin anew than go on."""


def new_project_in(connection: Connection, *, root: str, folder: bytes, **values: Any) -> int:
    """Make a found project inside the transaction of another verb, as the next round of its name; returns its id."""
    last = connection.execute(select(func.max(_P.round)).where(_P.root == root, _P.folder == folder)).scalar() or 0
    facts: dict[str, Any] = {
        "root": root,
        "folder": folder,
        "round": last + 1,
        "marker": secrets.token_hex(MARKER_BYTES),
        "present": True,
        "state": State.FOUND,
        "condition": Condition.ACTIVE,
        "paused": False,
        "accepted": [],
        "tries": 0,
        "found_at": now(),
    }
    return inserted_id(connection.execute(insert(tables.projects).values(**{**facts, **values})))


def again(journal: Journal, project_id: int) -> Project:
    """Send a folder that lies in its drop directory once more, as a new round that is paid again; returns that round.

    The images count as accepted although they were sent before; everything else is checked and asked as for any new
    folder. Raises Refusal while the round before is under way, or where there is nothing yet to do again.
    """
    with journal.write() as connection:
        row = _row(connection, project_id)
        parts = _present(connection, row)
        if row.id not in {part.id for part in parts}:
            raise Refusal(_not_the_newest(row, parts))
        for part in parts:
            _may_end(part)
        new = new_round_in(connection, row)
        for part in parts:
            _end(connection, part, new)
        return new


def new_round_in(connection: Connection, row: Project) -> Project:
    """Begin the next round of a project's folder inside the transaction of another verb.

    From now on the folder belongs to it. The rounds before are left as they are, all parts of a split folder alike.
    Raises Stale while the folder is being put away, or where it belongs to a newer round already.
    """
    parts = _present(connection, row)
    if row.id not in {part.id for part in parts} or any(_is_being_put_away(part) for part in parts):
        raise Stale(f"the folder of {row.title} is not free for another round")
    for part in parts:
        update_one(connection, tables.projects, _P.id == part.id, _P.present, present=False)
    new_id = new_project_in(
        connection,
        root=row.root,
        folder=row.folder,
        device=row.device,
        inode=row.inode,
        members=row.members,
        seen_images=sum(part.seen_images for part in parts),
        accepted=[HoldCode.ALREADY_SENT],
    )
    new = _row(connection, new_id)
    tell(connection, new.id, "again", f"round {new.round} of the folder, sent once more after {row.title}")
    tell(connection, row.id, "again", f"the folder is sent once more as {new.title}")
    return new


def renumber(journal: Journal, project_id: int, least: int, why: str) -> Project:
    """Give a project another number of its round, at least `least` and free in its name; returns it as it is then."""
    with journal.write() as connection:
        row = _row(connection, project_id)
        same_name = (_P.root == row.root, _P.folder == row.folder, _P.id != row.id)
        taken = set(connection.execute(select(_P.round).where(*same_name)).scalars())
        number = next(number for number in range(least, least + len(taken) + 1) if number not in taken)
        update_one(connection, tables.projects, _P.id == row.id, _P.round == row.round, round=number)
        tell(connection, row.id, "round", f"called round {number} from now on: {why}")
        return _row(connection, row.id)


def _row(connection: Connection, project_id: int) -> Project:
    found = select(tables.projects).where(_P.id == project_id)
    return records.project(connection.execute(found).mappings().one())


def _present(connection: Connection, row: Project) -> list[Project]:
    """Read the projects that the folder belongs to now: one, or all parts of a folder that was split."""
    kind = _P.members.is_(None) if row.members is None else _P.members.is_not(None)
    here = (_P.root == row.root, _P.folder == row.folder, _P.present, kind)
    query = select(tables.projects).where(*here).order_by(_P.id)
    found = [records.project(one) for one in connection.execute(query).mappings()]
    # Another mission of that name may have other folders: those of yesterday that still lie there.
    return [one for one in found if one.members == row.members]


def _is_being_put_away(row: Project) -> bool:
    return row.put_away == afterwards.deleting() or afterwards.planned_names(row) is not None


def _not_the_newest(row: Project, present: list[Project]) -> str:
    if present:
        return f"{row.title} is not the newest round of its folder; name that one: {present[-1].title}"
    return f"{row.title} is gone from the drop directory; put it back, and it is found as a new folder"


def _may_end(row: Project) -> None:
    """Raise Refusal unless a round is over, or a person may well give it up for a new one."""
    if _is_being_put_away(row):
        raise Refusal(f"the folder of {row.title} is just being put away; it is too late to send it once more")
    ended = row.state is State.DELIVERED or row.condition is Condition.DROPPED
    # Before the start late images join, and two rounds would be paid.
    too_late = row.hold_code is HoldCode.LATE_IMAGES and row.state in (State.STARTED, State.PROCESSED)
    if ended or too_late or (row.hold_code in ENDED and not before_create(row.state)):
        return
    if row.hold_code is not None:
        text = (
            f"{row.title} is held and can still go on: {row.hold_code}. {HOLDS[row.hold_code].remedy} "
            f"To begin anew instead, give it up first: pix4d-watcher drop FOLDER"
        )
    else:
        text = (
            f"{row.title} is under way ({SHOWN[row.state]}) and is not sent a second time beside that. "
            f"Wait for its end, or give it up first: pix4d-watcher drop FOLDER"
        )
    # Another part of the folder may be in the way than the one that was asked for.
    raise Refusal(text if row.split_of is None else with_name(text, row.title))


def _end(connection: Connection, row: Project, new: Project) -> None:
    """Settle what a round that is replaced waits for: late images are in the new one, and a failure is given up."""
    if row.condition is not Condition.HELD:
        return
    values: dict[str, Any] = {"hold_code": None, "hold_text": None, "due_at": None, "waiting_for": None, "tries": 0}
    if row.hold_code is HoldCode.LATE_IMAGES:
        values |= {"condition": Condition.ACTIVE, "accepted": [*row.accepted, HoldCode.LATE_IMAGES]}
        tell(connection, row.id, "approved", f"goes on without the late images: they are in {new.title}")
    else:
        values |= {"condition": Condition.DROPPED}
        orphans.leave_in(connection, tables.images.c.project_id == row.id)
        tell(connection, row.id, "dropped", f"given up by a person for {new.title}")
    update_one(connection, tables.projects, _P.id == row.id, **values)
