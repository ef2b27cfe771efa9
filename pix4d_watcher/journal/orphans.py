"""Multipart uploads of ours that nobody needs any more: kept here until they are aborted, since parts cost storage.

An image that was skipped, given up or frozen anew leaves its upload behind in the transaction that says so. An upload
whose id is not in the journal, here or with its image, is never touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, literal, null, or_, select, update

from pix4d_watcher.core.model import Condition, ImageStatus
from pix4d_watcher.journal import tables

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import ColumnElement, Connection

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Image

_P, _I, _O = tables.projects.c, tables.images.c, tables.orphans.c


@dataclass(frozen=True, slots=True)
class Orphan:
    """An upload to be aborted; `key` is the whole key, with the project's prefix."""

    upload_id: str
    image_id: int
    remote_id: int
    key: str
    tries: int


def leave_in(connection: Connection, *which: ColumnElement[bool]) -> None:
    """Leave the uploads of these images behind inside the transaction of another verb, and forget their parts."""
    these = (_I.upload_id.is_not(None), *which)
    found = select(_I.upload_id, _I.id, _I.key, literal(0)).where(*these)
    columns = ("upload_id", "image_id", "key", "tries")
    if not connection.execute(insert(tables.orphans).from_select(columns, found)).rowcount:
        return
    parts = tables.parts
    connection.execute(delete(parts).where(parts.c.image_id.in_(select(_I.id).where(*these))))
    connection.execute(update(tables.images).where(*these).values(upload_id=null()))


def begun_in_vain_in(connection: Connection, image: Image, upload_id: str) -> bool:
    """Leave an upload behind that was begun for an image which nobody wants any more by now; False where it is wanted.

    Inside the transaction of another verb.
    """
    wanted = select(_I.id).where(
        _I.id == image.id,
        _I.status == ImageStatus.PENDING,
        _I.sha256 == image.sha256,
        _I.project_id.in_(select(_P.id).where(_P.condition != Condition.DROPPED)),
    )
    if connection.execute(wanted).first() is not None:
        return False
    facts = {"upload_id": upload_id, "image_id": image.id, "key": image.key, "tries": 0}
    connection.execute(insert(tables.orphans), facts)
    return True


def to_abort(journal: Journal, now: float, horizon: float, *, but: Collection[int]) -> Orphan | None:
    """Give the next upload to be aborted, leaving out those of images whose id is in `but`."""
    due = or_(_O.due_at.is_(None), _O.due_at <= now, _O.due_at > now + horizon)
    query = (
        select(_O.upload_id, _O.image_id, _O.key, _O.tries, _P.remote_id, _P.prefix)
        .join(tables.images, _I.id == _O.image_id)
        .join(tables.projects, _P.id == _I.project_id)
        .where(due)
        .order_by(_O.image_id)
    )
    with journal.read() as connection:
        rows = connection.execute(query)
        row = next((row for row in rows if row.image_id not in but), None)
    if row is None:
        return None
    return Orphan(row.upload_id, row.image_id, row.remote_id, f"{row.prefix}/{row.key}", row.tries)


def any_left(journal: Journal) -> bool:
    """Say whether some upload is still to be aborted."""
    with journal.read() as connection:
        return connection.execute(select(_O.upload_id).limit(1)).first() is not None


def gone(journal: Journal, orphan: Orphan) -> None:
    """Forget an upload: it is aborted, or nothing more can be done about it."""
    with journal.write() as connection:
        connection.execute(delete(tables.orphans).where(_O.upload_id == orphan.upload_id))


def later(journal: Journal, orphan: Orphan, *, due_at: float, counts: bool) -> None:
    """Note that an abort did not go through, whether it counts as a failed try, and when it is tried again."""
    tries = orphan.tries + (1 if counts else 0)
    with journal.write() as connection:
        one = update(tables.orphans).where(_O.upload_id == orphan.upload_id)
        connection.execute(one.values(tries=tries, due_at=due_at))
