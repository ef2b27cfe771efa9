"""Verbs about a project's condition and its plain steps: checked, held, lifted, waiting, tried, finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, bindparam, select, update

from pix4d_watcher.core.machine import HOLDS, may_follow
from pix4d_watcher.core.model import Condition, HoldCode, ImageStatus, State
from pix4d_watcher.journal import outbox, service, tables
from pix4d_watcher.journal.change import Stale, execute_many, now, tell, update_one
from pix4d_watcher.journal.removed import removed_in
from pix4d_watcher.journal.sent import same_set

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project

_CLEAR_HOLD = {"hold_code": None, "hold_text": None}
Hold = tuple[HoldCode, str]
"""A hold's code and its text for people."""


def checked(
    journal: Journal,
    project_id: int,
    report: Mapping[str, Any],
    *,
    skipped: Mapping[bytes, str],
    keys: Mapping[bytes, str],
    hold: Hold | None,
    fingerprint: bytes | None = None,
    content_set: bytes | None = None,
    alone: bool = False,
) -> None:
    """Write the outcome of the image checks: the report, the skipped images, the key of each other, perhaps a hold.

    Raises Stale when the folder was frozen anew meanwhile: `fingerprint` is that of the manifest that was checked, and
    every image of the manifest must be in `skipped` or in `keys`. `content_set` stands for the images to be sent;
    `alone`: no other project was found to have it, so that one that came meanwhile raises Stale, too.
    """
    table = tables.projects
    same = () if fingerprint is None else (table.c.fingerprint == fingerprint,)
    settled = (table.c.id == project_id, table.c.state == State.SETTLED, *same)
    with journal.write() as connection:
        update_one(connection, table, *settled, report=report, content_set=content_set, due_at=None)
        mark_images(connection, project_id, skipped, keys)
        if alone and content_set is not None and same_set(connection, project_id, content_set):
            raise Stale("another project with the same images came meanwhile")
        sendable = report.get("sendable", len(keys))
        tell(connection, project_id, "checked", f"{sendable} images to send, {len(keys) + len(skipped) - sendable} not")
        if hold:
            hold_in(connection, project_id, *hold, due_at=None)


def overridden(
    journal: Journal, project_id: int, overrides: Mapping[str, Any] | None, *, fingerprint: bytes | None, text: str
) -> None:
    """Write what the folder's pix4d.yaml sets; raises Stale when the folder was frozen anew meanwhile."""
    table = tables.projects
    same = (table.c.id == project_id, table.c.state == State.SETTLED, table.c.fingerprint == fingerprint)
    with journal.write() as connection:
        update_one(connection, table, *same, overrides=overrides)
        tell(connection, project_id, "folder file", text)


def template_sent(journal: Journal, project_id: int, key: str, text: str) -> None:
    """Note the key under which the processing template lies in the cloud, once it is uploaded and registered."""
    table = tables.projects
    with journal.write() as connection:
        update_one(connection, table, table.c.id == project_id, table.c.template_key.is_(None), template_key=key)
        tell(connection, project_id, "template", text)


def mark_images(
    connection: Connection, project_id: int, skipped: Mapping[bytes, str], keys: Mapping[bytes, str]
) -> None:
    """Mark each image as skipped or to be sent, in a verb's transaction; raises Stale unless that is all of them."""
    images = tables.images
    frozen = connection.execute(select(images.c.path).where(images.c.project_id == project_id)).scalars()
    if set(frozen) != keys.keys() | skipped.keys():
        raise Stale("the folder was frozen anew while its images were checked")
    if removed_in(connection, project_id).keys() - skipped.keys():
        raise Stale("a person took an image out while the images were checked")
    # A check that is run again (after an approval) decides anew, so the old marks go first.
    connection.execute(
        update(images)
        .where(images.c.project_id == project_id)
        .values(status=ImageStatus.PENDING, reason=None, key=None)
    )
    one = update(images).where(images.c.project_id == project_id, images.c.path == bindparam("at"))
    skip = one.values(status=ImageStatus.SKIPPED, reason=bindparam("why"))
    execute_many(connection, skip, ({"at": path, "why": why} for path, why in skipped.items()))
    give = one.values(key=bindparam("given"))
    execute_many(connection, give, ({"at": path, "given": key} for path, key in keys.items()))


def hold(
    journal: Journal,
    project_id: int,
    code: HoldCode,
    text: str,
    *,
    due_at: float | None = None,
    unless_accepted: bool = False,
) -> None:
    """Stop a project with a cause; `due_at` is when the engine looks again, for holds that lift by themselves.

    One that lifts by itself never replaces one that needs a person: its lifting would wave the project through.
    `unless_accepted`: raises Stale where a person has accepted it since the step began that asks.
    """
    table = tables.projects.c
    with journal.write() as connection:
        if (
            unless_accepted
            and code in connection.execute(select(table.accepted).where(table.id == project_id)).scalar_one()
        ):
            raise Stale(f"a person accepted {code} meanwhile")
        hold_in(connection, project_id, code, text, due_at=due_at)


def hold_in(connection: Connection, project_id: int, code: HoldCode, text: str, *, due_at: float | None) -> None:
    """Hold a project inside the transaction of another verb."""
    table = tables.projects
    columns = select(table.c.condition, table.c.hold_code, table.c.hold_text)
    before = connection.execute(columns.where(table.c.id == project_id)).one()
    needs_person = before.hold_code is not None and not HOLDS[HoldCode(before.hold_code)].by_itself
    if before.condition == Condition.DROPPED or (needs_person and HOLDS[code].by_itself):
        return
    connection.execute(
        update(table)
        .where(table.c.id == project_id)
        .values(
            condition=Condition.HELD,
            hold_code=code,
            hold_text=text,
            due_at=due_at if HOLDS[code].by_itself else None,
            waiting_for=None,
        )
    )
    # One that lifts by itself is looked at again and again, and its text counts free bytes or seconds: told once.
    if before.hold_code != code or (before.hold_text != text and not HOLDS[code].by_itself):
        tell(connection, project_id, "held", f"{code}: {text}")
    if before.hold_code != code:
        outbox.held(connection, project_id, code, text)


def lifted(journal: Journal, project_id: int, code: HoldCode, text: str) -> None:
    """Lift a hold whose cause is gone; another hold that came meanwhile stays, and so does that it was given up."""
    table = tables.projects
    with journal.write() as connection:
        changed = connection.execute(
            update(table)
            .where(table.c.id == project_id, table.c.hold_code == code, table.c.condition == Condition.HELD)
            .values(condition=Condition.ACTIVE, due_at=None, tries=0, **_CLEAR_HOLD)
        ).rowcount
        if changed:
            tell(connection, project_id, "lifted", text)


def waiting(journal: Journal, project_id: int, why: str, *, due_at: float) -> None:
    """Nothing is wrong: say what the project waits for, and when it is looked at again.

    Earlier failures are over with it: else some tries a day would add up to a hold in the weeks of a long job.
    """
    table = tables.projects
    with journal.write() as connection:
        connection.execute(
            update(table).where(table.c.id == project_id).values(waiting_for=why, due_at=due_at, tries=0, error=None)
        )


def put_off(journal: Journal, project: Project, *, due_at: float) -> None:
    """Look at a project later whose step came to nothing, unless it stands where another step is due at once."""
    table = tables.projects.c
    stands = (table.state == project.state, table.condition == project.condition)
    same_hold = table.hold_code.is_not_distinct_from(project.hold_code)
    with journal.write() as connection:
        connection.execute(
            update(tables.projects).where(table.id == project.id, *stands, same_hold).values(due_at=due_at)
        )


def trouble(journal: Journal, project_id: int, error: str, *, due_at: float, counts: bool = True) -> int:
    """Note a failed try and when the next one comes; returns the number of tries. `counts` False: not our fault."""
    table = tables.projects
    with journal.write() as connection:
        tries, last = connection.execute(select(table.c.tries, table.c.error).where(table.c.id == project_id)).one()
        tries += 1 if counts else 0
        connection.execute(
            update(table)
            .where(table.c.id == project_id)
            .values(tries=tries, error=error, due_at=due_at, waiting_for=None)
        )
        if last != error:
            tell(connection, project_id, "trouble", error)
        return int(tries)


def not_stopped(journal: Journal, project_id: int) -> None:
    """Raise Stale where a person paused or gave up the project, or paused everything, since its step began."""
    with journal.read() as connection:
        not_stopped_in(connection, project_id)


def not_stopped_in(connection: Connection, project_id: int) -> None:
    """Do the same inside the transaction of another verb."""
    table = tables.projects.c
    row = connection.execute(select(table.paused, table.condition).where(table.id == project_id)).one()
    if service.get_in(connection, service.PAUSED_ALL, default=False):
        raise Stale("everything was paused meanwhile")
    if row.paused or row.condition == Condition.DROPPED:
        raise Stale("the project was stopped meanwhile")


def advance(journal: Journal, project_id: int, before: State, after: State, text: str, **facts: Any) -> None:
    """Write the next fact of a project's life; raises Stale unless `before` is still the last one.

    Raises Stale, too, where an image is not as far: one may have joined since the engine counted. And what a person
    stopped is not delivered.
    """
    with journal.write() as connection:
        advance_in(connection, project_id, before, after, text, **facts)


def advance_in(connection: Connection, project_id: int, before: State, after: State, text: str, **facts: Any) -> None:
    """Do the same inside the transaction of another verb; a hold that lifts by itself is over with the step."""
    if not may_follow(before, after):
        raise AssertionError(f"{after} does not follow {before}")
    _no_image_behind(connection, project_id, after)
    if after is State.DELIVERED:
        not_stopped_in(connection, project_id)
    table = tables.projects
    lifting = [code for code, hold in HOLDS.items() if hold.by_itself]
    connection.execute(
        update(table)
        .where(table.c.id == project_id, table.c.hold_code.in_(lifting))
        .values(condition=Condition.ACTIVE, **_CLEAR_HOLD)
    )
    update_one(
        connection,
        table,
        table.c.id == project_id,
        table.c.state == before,
        state=after,
        tries=0,
        due_at=None,
        waiting_for=None,
        error=None,
        **{f"{after}_at": now(), **facts},
    )
    tell(connection, project_id, str(after), text)
    if after is State.DELIVERED:
        outbox.delivered(connection, project_id)


_BEHIND = {State.UPLOADED: [ImageStatus.PENDING], State.REGISTERED: [ImageStatus.PENDING, ImageStatus.UPLOADED]}


def _no_image_behind(connection: Connection, project_id: int, after: State) -> None:
    images = tables.images
    behind = select(images.c.id).where(images.c.project_id == project_id, images.c.status.in_(_BEHIND.get(after, [])))
    if after in _BEHIND and connection.execute(behind.limit(1)).first() is not None:
        raise Stale(f"not every image is {after} yet")


def cloud_said(journal: Journal, project_id: int, status: str, text: str) -> None:
    """Note a new status of the project in the cloud; the same one again writes nothing."""
    table = tables.projects
    with journal.write() as connection:
        changed = connection.execute(
            update(table)
            .where(table.c.id == project_id, table.c.cloud_status.is_distinct_from(status))
            .values(cloud_status=status)
        ).rowcount
        if changed:
            tell(connection, project_id, "cloud", text)
