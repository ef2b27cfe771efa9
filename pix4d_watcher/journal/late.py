"""Verbs of the scanner about images that came late: too late for the start, or not complete when it is due."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select, update

from pix4d_watcher.core.machine import HOLDS
from pix4d_watcher.core.model import EffectKind, EffectStatus, HoldCode, ImageStatus, State, printable
from pix4d_watcher.journal import records, tables
from pix4d_watcher.journal.change import Stale, execute_many, tell, update_one
from pix4d_watcher.journal.folders import insert_images, is_batch_open
from pix4d_watcher.journal.projects import hold_in
from pix4d_watcher.journal.rounds import new_round_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from pix4d_watcher.core.model import FileId, FrozenImage
    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Image, Project

REWRITTEN = "was rewritten in the folder after it was sent; what was sent stays"
"""What is said of such an image."""


def held(journal: Journal, project_id: int, images: Sequence[FrozenImage], *, text: str, fingerprint: bytes) -> None:
    """Record late images as skipped and hold the project until a person has seen it; raises Stale if they can join."""
    with journal.write() as connection:
        _too_late_in(connection, project_id, images, fingerprint=fingerprint)
        _hold_in(connection, project_id, text)


def ignored(journal: Journal, project_id: int, images: Sequence[FrozenImage], *, text: str, fingerprint: bytes) -> None:
    """Record late images as skipped and go on; raises Stale when they can still join."""
    with journal.write() as connection:
        _too_late_in(connection, project_id, images, fingerprint=fingerprint)
        tell(connection, project_id, "late", text)


def in_new_round(
    journal: Journal, project_id: int, images: Sequence[FrozenImage], *, text: str, fingerprint: bytes
) -> Project:
    """Begin a new round of the folder with all its images; the present round goes on to its end without the late ones.

    Returns the new round. Raises Stale when the images can still join, or when the folder has a newer round already.
    """
    with journal.write() as connection:
        _too_late_in(connection, project_id, images, fingerprint=fingerprint)
        tell(connection, project_id, "late", text)
        query = tables.projects.select().where(tables.projects.c.id == project_id)
        return new_round_in(connection, records.project(connection.execute(query).mappings().one()))


def not_complete(journal: Journal, project_id: int, text: str) -> None:
    """Ask a person about late images that nothing but somebody's hand makes complete, once.

    Raises Stale before all else is registered, while a start is asked for, where a person has accepted it, and while
    another hold needs a person: it is asked when that is lifted, since what it says changes until then.
    """
    table = tables.projects.c
    with journal.write() as connection:
        columns = select(table.state, table.accepted, table.hold_code)
        row = connection.execute(columns.where(table.id == project_id)).one()
        if row.state not in (State.REGISTERED, State.STARTED, State.PROCESSED, State.DELIVERED):
            raise Stale("the project has others to send")
        if row.state == State.REGISTERED and is_batch_open(connection, project_id):
            raise Stale("the outcome of a call decides first")
        if HoldCode.LATE_IMAGES in row.accepted:
            raise Stale("a person accepted that it starts without them")
        if row.hold_code is not None and not HOLDS[HoldCode(row.hold_code)].by_itself:
            raise Stale("another hold needs a person first")
        _hold_in(connection, project_id, text)


def seen_again(journal: Journal, project_id: int, same: Mapping[int, FileId], rewritten: Sequence[Image]) -> None:
    """Note under which identity known images, by their ids, lie there now; tell which were rewritten, once each."""
    images = tables.images
    this = update(images).where(images.c.id == bindparam("this"))
    with journal.write() as connection:
        identity = this.values(mtime_ns=bindparam("mtime"), ctime_ns=bindparam("ctime"), inode=bindparam("number"))
        facts = [
            {"this": one, "mtime": now.mtime_ns, "ctime": now.ctime_ns, "number": now.inode}
            for one, now in same.items()
        ]
        execute_many(connection, identity, facts)
        sent = (images.c.status.in_([ImageStatus.UPLOADED, ImageStatus.REGISTERED]), images.c.reason.is_(None))
        marked = this.where(*sent).values(reason=REWRITTEN)
        for image in rewritten:
            if connection.execute(marked, {"this": image.id}).rowcount:
                tell(connection, project_id, "late", f"{printable(image.path)} {REWRITTEN}")


def _hold_in(connection: Connection, project_id: int, text: str) -> None:
    """Hold a project for late images; the text of a hold that a person has to lift anyway says it, too."""
    table = tables.projects.c
    before = connection.execute(select(table.hold_code, table.hold_text).where(table.id == project_id)).one()
    if before.hold_code is None or HOLDS[HoldCode(before.hold_code)].by_itself:
        hold_in(connection, project_id, HoldCode.LATE_IMAGES, text, due_at=None)
    else:
        hold_in(connection, project_id, HoldCode(before.hold_code), f"{before.hold_text}. {text}", due_at=None)


def _too_late_in(connection: Connection, project_id: int, images: Sequence[FrozenImage], *, fingerprint: bytes) -> None:
    """Record images that came after the intent of the start inside the transaction of another verb; raises Stale."""
    table = tables.projects
    reason = "came after processing had started"
    _start_asked(connection, project_id)
    insert_images(connection, project_id, images, skipped={image.path: reason for image in images})
    update_one(
        connection,
        table,
        table.c.id == project_id,
        table.c.state.in_([State.REGISTERED, State.STARTED, State.PROCESSED, State.DELIVERED]),
        fingerprint=fingerprint,
    )


def _start_asked(connection: Connection, project_id: int) -> None:
    effects = tables.effects
    asked = select(effects.c.id).where(
        effects.c.project_id == project_id,
        effects.c.kind == EffectKind.START,
        effects.c.status.in_([EffectStatus.OPEN, EffectStatus.DONE]),
    )
    if connection.execute(asked).first() is None:
        raise Stale("the start is not asked for; the images can still join")
