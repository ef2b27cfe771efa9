"""Verbs of the upload pool: what happened to each image and each part of a large one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, func, insert, select, update

from pix4d_watcher.core.model import Condition, FileId, FrozenImage, ImageStatus, State, printable
from pix4d_watcher.journal import orphans, tables
from pix4d_watcher.journal.change import Stale, changed_one, execute_many, now, tell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Image


_IMAGES = tables.images.c

# Said for every single image: building these anew costs more than saying them.
_STILL_PENDING = update(tables.images).where(
    _IMAGES.id == bindparam("this"),
    _IMAGES.status == ImageStatus.PENDING,
    # The content, too: what was sent before it was frozen anew says nothing about what is frozen now.
    _IMAGES.sha256 == bindparam("content"),
)
_BEGUN = _STILL_PENDING.values(begun=True)
_UPLOADED = _STILL_PENDING.values(
    status=ImageStatus.UPLOADED,
    etag=bindparam("said"),
    uploaded_at=bindparam("at"),
    upload_id=None,
    error=None,
    due_at=None,
)
_FORGET_PARTS = delete(tables.parts).where(tables.parts.c.image_id == bindparam("this"))
_ANY_PENDING = (
    select(_IMAGES.id)
    .where(_IMAGES.project_id == bindparam("project_id"), _IMAGES.status == ImageStatus.PENDING)
    .limit(1)
)
_NEXT_DUE = (
    select(func.min(_IMAGES.due_at))
    .join(tables.projects, tables.projects.c.id == _IMAGES.project_id)
    .where(
        tables.projects.c.state == State.CREATED,
        tables.projects.c.condition == Condition.ACTIVE,
        ~tables.projects.c.paused,
        _IMAGES.status == ImageStatus.PENDING,
        _IMAGES.due_at > bindparam("now"),
    )
)


def next_due(journal: Journal, now: float) -> float | None:
    """Say when the next image that waits for its time (s since 1970) is to be sent; None where none waits."""
    with journal.read() as connection:
        due: float | None = connection.execute(_NEXT_DUE, {"now": now}).scalar()
    return due


def begun(journal: Journal, image: Image) -> None:
    """Note that a PUT under this key may reach the service from now on; raises Stale unless still pending."""
    with journal.write() as connection:
        changed_one(connection, _BEGUN, {"this": image.id, "content": image.sha256})


def uploaded(journal: Journal, image: Image, etag: str) -> bool:
    """Record that the service holds exactly what was frozen; says whether it was the last pending image.

    The project is then due at once. Raises Stale when the image is not pending any more.
    """
    projects = tables.projects
    arrived = {"this": image.id, "content": image.sha256, "said": etag, "at": now()}
    with journal.write() as connection:
        connection.execute(_FORGET_PARTS, {"this": image.id})
        changed_one(connection, _UPLOADED, arrived)
        left = connection.execute(_ANY_PENDING, {"project_id": image.project_id}).first()
        if left is None:
            connection.execute(update(projects).where(projects.c.id == image.project_id).values(due_at=None))
        return left is None


def failed(journal: Journal, image: Image, error: str, *, due_at: float, counts: bool = True) -> int:
    """Note a failed try of one image and when the next comes; returns the tries so far."""
    tries = image.tries + (1 if counts else 0)
    with journal.write() as connection:
        connection.execute(
            update(tables.images)
            .where(tables.images.c.id == image.id, tables.images.c.status == ImageStatus.PENDING)
            .values(error=error, due_at=due_at, tries=tries)
        )
        if image.error != error:
            tell(connection, image.project_id, "image", f"{printable(image.path)}: {error}")
    return tries


def all_failing(journal: Journal, errors: Mapping[int, str]) -> None:
    """Note what is wrong with many images, by their ids, found by one look; the hold that follows tells."""
    this = (_IMAGES.id == bindparam("this"), _IMAGES.status == ImageStatus.PENDING)
    noted = update(tables.images).where(*this).values(error=bindparam("said"), tries=_IMAGES.tries + 1)
    with journal.write() as connection:
        execute_many(connection, noted, ({"this": number, "said": error} for number, error in errors.items()))


def same_content(journal: Journal, image: Image, file_id: FileId) -> None:
    """Update the record of an image whose file has a new identity but the frozen content (chmod, remount, copy)."""
    with journal.write() as connection:
        _update(
            connection,
            image,
            mtime_ns=file_id.mtime_ns,
            ctime_ns=file_id.ctime_ns,
            inode=file_id.inode,
            look_again=False,
        )


def frozen_anew(journal: Journal, image: Image, frozen: FrozenImage, key: str) -> None:
    """Replace a pending image by its new content under `key`, which differs once an upload had begun."""
    with journal.write() as connection:
        orphans.leave_in(connection, _IMAGES.id == image.id)
        _update(
            connection,
            image,
            size=frozen.file_id.size,
            mtime_ns=frozen.file_id.mtime_ns,
            ctime_ns=frozen.file_id.ctime_ns,
            inode=frozen.file_id.inode,
            sha256=frozen.sha256,
            blocks=frozen.blocks,
            facts=asdict(frozen.facts),
            key=key,
            look_again=False,
            begun=False,
            tries=0,
            error=None,
            due_at=None,
        )
        tell(connection, image.project_id, "image", f"{printable(image.path)}: new content accepted")


def multipart_begun(journal: Journal, image: Image, upload_id: str) -> None:
    """Record the id of a new multipart upload, so that only our own are ever continued or aborted.

    Raises Stale when the image was skipped, frozen anew or given up meanwhile; then the upload is left to be aborted.
    """
    with journal.write() as connection:
        in_vain = orphans.begun_in_vain_in(connection, image, upload_id)
        if not in_vain:
            connection.execute(_FORGET_PARTS, {"this": image.id})
            _update(connection, image, upload_id=upload_id)
    if in_vain:
        raise Stale(f"{printable(image.path)} is not to be sent any more")


def multipart_lost(journal: Journal, image: Image) -> None:
    """Forget a multipart upload that the service does not know any more; the image starts again from its first part."""
    with journal.write() as connection:
        connection.execute(_FORGET_PARTS, {"this": image.id})
        _update(connection, image, upload_id=None)


def multipart_given_up(journal: Journal, image: Image) -> None:
    """Leave a multipart upload behind that cannot be completed; the image starts again from its first part."""
    with journal.write() as connection:
        orphans.leave_in(connection, _IMAGES.id == image.id, _IMAGES.upload_id == image.upload_id)


def part_done(journal: Journal, image: Image, upload_id: str, number: int, *, etag: str, size: int) -> None:
    """Record an answered part; raises Stale when the image has another multipart upload by now.

    Failed tries are over with it: the breaks of a long upload that moves on do not add up to a hold.
    """
    parts, images = tables.parts, tables.images
    with journal.write() as connection:
        ours = select(images.c.id).where(images.c.id == image.id, images.c.upload_id == upload_id)
        if connection.execute(ours).first() is None:
            raise Stale(f"{printable(image.path)} is not sent in this multipart upload any more")
        connection.execute(delete(parts).where(parts.c.image_id == image.id, parts.c.number == number))
        connection.execute(
            insert(parts).values(image_id=image.id, number=number, upload_id=upload_id, etag=etag, size=size)
        )
        connection.execute(update(images).where(images.c.id == image.id, images.c.tries > 0).values(tries=0))


def part_lost(journal: Journal, image: Image, number: int) -> None:
    """Forget a part that the service does not hold; it is sent again."""
    parts = tables.parts
    with journal.write() as connection:
        connection.execute(delete(parts).where(parts.c.image_id == image.id, parts.c.number == number))


def parts_of(journal: Journal, image: Image, upload_id: str) -> dict[int, tuple[str, int]]:
    """Read the journalled parts of one multipart upload: number → (ETag, bytes)."""
    parts = tables.parts
    with journal.read() as connection:
        rows = connection.execute(
            select(parts.c.number, parts.c.etag, parts.c.size).where(
                parts.c.image_id == image.id, parts.c.upload_id == upload_id
            )
        ).all()
    return {row.number: (row.etag, row.size) for row in rows}


def _update(connection: Connection, image: Image, **values: object) -> None:
    changed_one(connection, _STILL_PENDING.values(**values), {"this": image.id, "content": image.sha256})
