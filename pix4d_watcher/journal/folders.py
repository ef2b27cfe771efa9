"""Verbs of the scanner: drop directories and folders as they are seen, frozen, renamed and gone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from pix4d_watcher.core.machine import HOLDS
from pix4d_watcher.core.model import (
    Condition,
    EffectKind,
    EffectStatus,
    FrozenImage,
    HoldCode,
    ImageStatus,
    State,
    printable,
)
from pix4d_watcher.journal import outbox, tables
from pix4d_watcher.journal.change import Stale, execute_many, now, tell, update_one
from pix4d_watcher.journal.removed import still_removed
from pix4d_watcher.journal.rounds import new_project_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import RowMapping

    from pix4d_watcher.journal.database import Journal

MOST_OTHERS = 1000
"""Names of files that are no images which are kept for the report; nobody reads more."""


@dataclass(frozen=True, slots=True)
class NewFolder:
    """A folder that the scan saw and the journal does not know; `images` is how many it holds so far.

    `members` are the names of the folders that are joined under this one; empty for a single folder. `doubt` says why
    a person is to be asked before anything of it is sent; empty where nobody is.
    """

    name: bytes
    device: int
    inode: int
    images: int = 0
    members: tuple[bytes, ...] = ()
    doubt: str = ""


def root_seen(journal: Journal, name: str, path: bytes, *, device: int, inode: int, loose: int, watching: str) -> None:
    """Record a scan of a drop directory that is present."""
    facts = {
        "path": path,
        "device": device,
        "inode": inode,
        "scanned_at": now(),
        "present": True,
        "problem": "",
        "watching": watching,
        "loose": loose,
    }
    with journal.write() as connection:
        known = connection.execute(select(tables.roots.c.present).where(tables.roots.c.name == name)).first()
        if known is None:
            connection.execute(insert(tables.roots).values(name=name, first_scan_at=now(), **facts))
            tell(connection, None, "root", f"{name}: first scan of {printable(path)}")
            return
        connection.execute(update(tables.roots).where(tables.roots.c.name == name).values(**facts))
        if not known.present:
            tell(connection, None, "root", f"{name}: the drop directory is back")


def root_absent(journal: Journal, name: str, problem: str) -> None:
    """Record that a drop directory is away; nothing in it counts as deleted."""
    with journal.write() as connection:
        changed = connection.execute(
            update(tables.roots)
            .where(tables.roots.c.name == name, tables.roots.c.present)
            .values(present=False, problem=problem)
        ).rowcount
        if changed:
            tell(connection, None, "root", problem)


def folders_found(
    journal: Journal, root: str, folders: Sequence[NewFolder], *, hold: str | None = None, ignore: str | None = None
) -> list[int]:
    """Make a project of each folder, all in one transaction, and return their ids.

    `hold` holds them all for approval with that text; `ignore` drops them with that text (both: a first scan that met
    an archive). A name that was used before gets the next round's number, since its results need a place of their own.
    """
    with journal.write() as connection:
        ids = [_insert_folder(connection, root, folder, hold or folder.doubt, ignore) for folder in folders]
        if hold:
            outbox.held_together(connection, ids, HoldCode.APPROVAL, hold)
        elif doubtful := [number for number, folder in zip(ids, folders, strict=True) if folder.doubt]:
            text = next(folder.doubt for folder in folders if folder.doubt)
            outbox.held_together(connection, doubtful, HoldCode.APPROVAL, text)
        return ids


def _insert_folder(connection: Connection, root: str, folder: NewFolder, hold: str | None, ignore: str | None) -> int:
    table = tables.projects
    same_name = (table.c.root == root, table.c.folder == folder.name)
    # One that was replaced between two scans is as gone as one whose name was seen to be away; one on another card is
    # away with its card. A mission is no folder of its own: its name says nothing about what lies there.
    same_medium = (table.c.present, table.c.device == folder.device)
    here = select(table.c.id).where(*same_name, *same_medium, table.c.members.is_(None))
    for replaced in connection.execute(here).scalars().all() if not folder.members else ():
        _gone(connection, replaced, "another folder, or other images, took its place in the directory")
    values: dict[str, Any] = {"condition": Condition.ACTIVE}
    if hold:
        values = {"condition": Condition.HELD, "hold_code": HoldCode.APPROVAL, "hold_text": hold}
    elif ignore:
        values = {"condition": Condition.DROPPED}
    project_id = new_project_in(
        connection,
        root=root,
        folder=folder.name,
        device=folder.device,
        inode=folder.inode,
        seen_images=folder.images,
        members=[printable(name) for name in folder.members] or None,
        **values,
    )
    joins = f", joins {', '.join(printable(name) for name in folder.members)}" if folder.members else ""
    tell(connection, project_id, "found", ignore or f"found {root}/{printable(folder.name)}{joins}")
    return project_id


def folder_moved(journal: Journal, project_id: int, *, name: bytes, device: int, inode: int) -> bool:
    """Record that a known folder has a new name or a new identity; says whether anything changed.

    The number of the round stays unless the new name already used it. Images that were missing are looked for anew.
    """
    table = tables.projects
    with journal.write() as connection:
        row = connection.execute(select(table).where(table.c.id == project_id)).mappings().one()
        if (row["folder"], row["device"], row["inode"], row["present"]) == (name, device, inode, True):
            return False
        for part in _parts_of(connection, row):
            _move(connection, part, name, {"device": device, "inode": inode, "present": True})
        return True


def _parts_of(connection: Connection, row: RowMapping) -> Sequence[RowMapping]:
    """Read all projects that a folder was split into: they are in the same place."""
    table = tables.projects.c
    if row["split_of"] is None:
        return [row]
    same = (getattr(table, name) == row[name] for name in ("root", "folder", "present", "split_of"))
    kind = table.members.is_(None) if row["members"] is None else table.members.is_not(None)
    here = select(tables.projects).where(*same, kind).order_by(table.id)
    return connection.execute(here).mappings().all()


def _move(connection: Connection, row: RowMapping, name: bytes, values: dict[str, Any]) -> None:
    table = tables.projects
    if row["folder"] != name:
        taken = select(table.c.round).where(
            table.c.root == row["root"], table.c.folder == name, table.c.id != row["id"]
        )
        rounds = set(connection.execute(taken).scalars())
        if row["round"] in rounds:
            values = {**values, "round": max(rounds) + 1}
        tell(connection, row["id"], "renamed", f"{printable(row['folder'])} is now called {printable(name)}")
    update_one(connection, table, table.c.id == row["id"], folder=name, **values)
    _lift(connection, row["id"], [HoldCode.SOURCE_MISSING])


def folders_gone(journal: Journal, ids: Sequence[int]) -> None:
    """Record that a full scan of a present drop directory did not see these folders any more.

    One that was never frozen has nothing to lose and is dropped; the others go on: what was uploaded is uploaded.
    """
    with journal.write() as connection:
        for project_id in ids:
            _gone(connection, project_id)


def _gone(connection: Connection, project_id: int, text: str = "the folder is gone from the directory") -> None:
    table = tables.projects
    here = update(table).where(table.c.id == project_id, table.c.present)
    if not connection.execute(here.values(present=False)).rowcount:
        return
    dropped = connection.execute(
        update(table)
        .where(table.c.id == project_id, table.c.state == State.FOUND, table.c.condition != Condition.DROPPED)
        .values(condition=Condition.DROPPED, hold_code=None, hold_text=None, waiting_for=None)
    ).rowcount
    tell(connection, project_id, "gone", "the folder is gone before it was complete" if dropped else text)


def still_settling(journal: Journal, project_id: int, *, images: int, why: str) -> None:
    """Note how many images were seen and why the folder is not complete yet; the same again writes nothing."""
    table = tables.projects
    news = or_(table.c.seen_images != images, table.c.waiting_for.is_distinct_from(why))
    with journal.write() as connection:
        connection.execute(
            update(table)
            .where(table.c.id == project_id, table.c.state == State.FOUND, table.c.condition != Condition.DROPPED, news)
            .values(seen_images=images, waiting_for=why)
        )


def frozen(
    journal: Journal,
    project_id: int,
    images: Sequence[FrozenImage],
    *,
    fingerprint: bytes,
    others: Sequence[bytes] = (),
) -> None:
    """Write the manifest of a complete folder: found → settled, or a changed folder frozen anew while settled.

    A hold that a change of the folder lifts is lifted with it: once the new signature is written nobody would look
    again. Raises Stale when the project went further meanwhile.
    """
    table = tables.projects
    with journal.write() as connection:
        nothing_asked(connection, project_id)
        removed = still_removed(connection, project_id, images)
        connection.execute(delete(tables.images).where(tables.images.c.project_id == project_id))
        insert_images(connection, project_id, images, skipped=removed)
        update_one(
            connection,
            table,
            table.c.id == project_id,
            table.c.state.in_([State.FOUND, State.SETTLED]),
            table.c.condition != Condition.DROPPED,
            state=State.SETTLED,
            settled_at=now(),
            fingerprint=fingerprint,
            others=[printable(name) for name in others[:MOST_OTHERS]],
            report=None,
            seen_images=len(images),
            tries=0,
            due_at=None,
            waiting_for=None,
            error=None,
        )
        _lift(connection, project_id, [code for code, hold in HOLDS.items() if hold.by_folder])
        tell(connection, project_id, "settled", f"complete: {len(images)} images frozen")


def _lift(connection: Connection, project_id: int, codes: Sequence[HoldCode]) -> None:
    table = tables.projects
    connection.execute(
        update(table)
        .where(table.c.id == project_id, table.c.hold_code.in_(codes), table.c.condition == Condition.HELD)
        .values(condition=Condition.ACTIVE, hold_code=None, hold_text=None)
    )


def nothing_asked(connection: Connection, project_id: int) -> None:
    """Raise Stale when the cloud was, or may have been, asked to create a project."""
    effects = tables.effects
    asked = connection.execute(
        select(effects.c.id).where(
            effects.c.project_id == project_id, effects.c.status.in_([EffectStatus.OPEN, EffectStatus.DONE])
        )
    ).first()
    if asked is not None:
        raise Stale("the cloud was already asked to create this project")


def late_images(
    journal: Journal,
    project_id: int,
    images: Sequence[FrozenImage],
    *,
    keys: Mapping[bytes, str],
    skipped: Mapping[bytes, str],
    fingerprint: bytes,
    report: Mapping[str, Any] | None = None,
) -> None:
    """Add images that came before the start: uploaded and registered go back to created, the one step back.

    `report` is that of all images by now. While a batch is open the step back waits for its outcome. Raises Stale once
    the intent of the start is written.
    """
    table = tables.projects
    with journal.write() as connection:
        back = {} if is_batch_open(connection, project_id) else {"state": State.CREATED, "due_at": None}
        insert_images(connection, project_id, images, keys=keys, skipped=skipped)
        told = {"report": dict(report)} if report is not None else {}
        update_one(
            connection,
            table,
            table.c.id == project_id,
            table.c.state.in_([State.CREATED, State.UPLOADED, State.REGISTERED]),
            fingerprint=fingerprint,
            **back,
            **told,
        )
        # What held the start would hold the uploads now: the project takes the new images first and then waits again.
        of_images = [code for code, hold in HOLDS.items() if hold.by_folder]
        _lift(connection, project_id, [HoldCode.MANUAL_START, HoldCode.NO_CREDIT, HoldCode.LATE_IMAGES, *of_images])
        tell(connection, project_id, "late", f"{len(images)} more images joined before the start")


def looked_at(journal: Journal, project_id: int, fingerprint: bytes) -> None:
    """Note the signature of a folder whose changes need nothing from us, so that it is not looked at again.

    A start that waited for it is due now.
    """
    table = tables.projects
    this = update(table).where(table.c.id == project_id)
    with journal.write() as connection:
        connection.execute(this.values(fingerprint=fingerprint))
        connection.execute(this.where(table.c.state == State.REGISTERED).values(due_at=None))


def is_batch_open(connection: Connection, project_id: int) -> bool:
    """Say whether a registration is open; raises Stale where a start is open or done."""
    effects = tables.effects
    rows = connection.execute(select(effects.c.kind, effects.c.status).where(effects.c.project_id == project_id)).all()
    for kind, status in rows:
        if kind == EffectKind.START and status in (EffectStatus.OPEN, EffectStatus.DONE):
            raise Stale("the outcome of the start decides first")
    return any(status == EffectStatus.OPEN for _kind, status in rows)


def insert_images(
    connection: Connection,
    project_id: int,
    images: Sequence[FrozenImage],
    *,
    keys: Mapping[bytes, str] | None = None,
    skipped: Mapping[bytes, str] | None = None,
) -> None:
    """Insert frozen images inside the transaction of another verb; those in `skipped` are not sent, with the reason.

    One that stayed behind and came once more with other content takes its own place.
    """
    table, new = tables.images, {image.path for image in images}
    behind = select(table.c.path).where(table.c.project_id == project_id, table.c.status == ImageStatus.SKIPPED)
    again = new.intersection(connection.execute(behind).scalars())

    def rows(*, known: bool) -> Iterator[dict[str, Any]]:
        for image in images:
            if (image.path in again) == known:
                yield _fresh(image, (keys or {}).get(image.path), (skipped or {}).get(image.path))

    execute_many(connection, insert(table).values(project_id=project_id), rows(known=False))
    here = update(table).where(table.c.project_id == project_id, table.c.path == bindparam("at"))
    execute_many(connection, here, ({"at": row["path"], **row} for row in rows(known=True)))


def _fresh(image: FrozenImage, key: str | None, reason: str | None) -> dict[str, Any]:
    """Give the columns of an image of which nothing was sent yet; one with a `reason` stays behind."""
    return {
        "path": image.path,
        "size": image.file_id.size,
        "mtime_ns": image.file_id.mtime_ns,
        "ctime_ns": image.file_id.ctime_ns,
        "inode": image.file_id.inode,
        "sha256": image.sha256,
        "blocks": image.blocks,
        "facts": asdict(image.facts),
        "status": ImageStatus.PENDING if reason is None else ImageStatus.SKIPPED,
        "reason": reason,
        "key": key,
        "look_again": False,
        "begun": False,
        "tries": 0,
        "due_at": None,
        "error": None,
    }
