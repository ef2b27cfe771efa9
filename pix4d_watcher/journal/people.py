"""Verbs of people: pause, resume, retry, drop, start, approve. They work while the service is down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select, update

from pix4d_watcher.core.machine import HOLDS, acceptances, before_create, lifted_by
from pix4d_watcher.core.model import Condition, EffectKind, EffectStatus, HoldCode, ImageStatus, Learnt, State
from pix4d_watcher.journal import afterwards, orphans, records, service, tables
from pix4d_watcher.journal.change import now, tell, update_one
from pix4d_watcher.journal.projects import advance_in

if TYPE_CHECKING:
    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Effect, Project


class Refusal(Exception):
    """What a person asked for does not fit the project; the text says what would."""


def pause(journal: Journal, project_id: int, *, paused: bool) -> str:
    """Stop or go on with one project; holds are neither set nor cleared. Says what it came to."""
    table = tables.projects
    with journal.write() as connection:
        update_one(connection, table, table.c.id == project_id, paused=paused)
        row = _row(connection, project_id)
        _not_dropped(row)
        tell(connection, project_id, "paused" if paused else "resumed", "by a person")
    if paused:
        return "paused; pix4d-watcher resume FOLDER goes on"
    if service.get(journal, service.PAUSED_ALL, default=False):
        return "not paused by itself any more, but everything is; pix4d-watcher resume --all goes on"
    return "goes on" if row.hold_code is None else f"not paused any more, and still held: {row.hold_code}"


def drop(journal: Journal, project_id: int) -> None:
    """Give a project up: nothing more is sent for it. What is in the cloud or on disk stays.

    Only images that were sent in part are taken back: they are no objects yet. A hold that only a person's approval
    lifts is kept with the row, so that taking the project up again is no approval by the back door.
    """
    table = tables.projects
    with journal.write() as connection:
        row = _row(connection, project_id)
        if row.state is State.DELIVERED and row.condition is not Condition.HELD:
            raise Refusal(f"{row.title} is done; there is nothing to give up")
        kept = row.hold_code is not None and acceptances(row.hold_code) and not HOLDS[row.hold_code].by_folder
        update_one(
            connection,
            table,
            table.c.id == project_id,
            condition=Condition.DROPPED,
            hold_code=row.hold_code if kept else None,
            hold_text=row.hold_text if kept else None,
            waiting_for=None,
            due_at=None,
        )
        orphans.leave_in(connection, tables.images.c.project_id == project_id)
        tell(connection, project_id, "dropped", "given up by a person")


def approve(journal: Journal, project_id: int) -> HoldCode:
    """Accept what a project is held for; recorded, and not asked again. Returns the code."""
    with journal.write() as connection:
        row = _row(connection, project_id)
        code = _held(row, "approve")
        _lift(connection, row, accept=code)
        tell(connection, project_id, "approved", f"{code} accepted by a person")
        return code


def start(journal: Journal, project_id: int) -> None:
    """Allow a project whose start is manual to start: now if it is ready, else as soon as it is."""
    with journal.write() as connection:
        row = _row(connection, project_id)
        _not_dropped(row)
        if row.state in (State.STARTED, State.PROCESSED, State.DELIVERED):
            raise Refusal(f"{row.title} was started already, it is {row.state}; there is nothing to start")
        if row.condition is Condition.HELD and row.hold_code is not HoldCode.MANUAL_START:
            assert row.hold_code is not None
            raise Refusal(f"{row.title} is held for another reason: {row.hold_code}. {HOLDS[row.hold_code].remedy}")
        if row.condition is Condition.HELD:
            _lift(connection, row, accept=HoldCode.MANUAL_START)
        else:
            _accept(connection, row, HoldCode.MANUAL_START)
        tell(connection, project_id, "start", "allowed by a person")


def retry(journal: Journal, project_id: int, *, verdict: bool | None = None) -> str:
    """Look again now. With `verdict` (only for `in_doubt`) a person says whether the cloud did it. Says what it did."""
    with journal.write() as connection:
        row = _row(connection, project_id)
        if verdict is not None:
            _decide(connection, row, done=verdict)
            return "recorded"
        if row.condition is Condition.DROPPED:
            return _undrop(connection, row)
        if row.condition is Condition.HELD:
            code = _held(row, "retry")
            _lift(connection, row)
            _forget_tries(connection, project_id, source=code in (HoldCode.SOURCE_MISSING, HoldCode.SOURCE_CHANGED))
        else:
            if row.state is State.DELIVERED and not afterwards.is_awaited(row):
                raise Refusal(
                    f"{row.title} is done; there is nothing to try again. "
                    "To send it once more, which is paid again: pix4d-watcher again FOLDER"
                )
            table = tables.projects
            update_one(connection, table, table.c.id == project_id, due_at=None, tries=0)
            afterwards.look_again(connection, project_id)
            _forget_tries(connection, project_id, source=False)
        tell(connection, project_id, "retry", "asked for by a person")
    if row.paused:
        return "tried again when it goes on; it is paused: pix4d-watcher resume FOLDER"
    if service.get(journal, service.PAUSED_ALL, default=False):
        return "tried again when everything goes on; it is paused: pix4d-watcher resume --all"
    return "tried again now"


def open_effect_of(connection: Connection, project_id: int) -> Effect | None:
    """Read the open effect of a project."""
    effects = tables.effects
    row = (
        connection.execute(
            select(effects).where(effects.c.project_id == project_id, effects.c.status == EffectStatus.OPEN)
        )
        .mappings()
        .first()
    )
    return records.effect(row) if row else None


def _row(connection: Connection, project_id: int) -> Project:
    found = select(tables.projects).where(tables.projects.c.id == project_id)
    return records.project(connection.execute(found).mappings().one())


def _not_dropped(row: Project) -> None:
    if row.condition is Condition.DROPPED:
        raise Refusal(f"{row.title} was given up. To take it up again: pix4d-watcher retry FOLDER")


def _held(row: Project, command: str) -> HoldCode:
    _not_dropped(row)
    if row.condition is not Condition.HELD or row.hold_code is None:
        raise Refusal(f"{row.title} is not held; there is nothing to {command}")
    always = command == "retry" and (HOLDS[row.hold_code].by_itself or HOLDS[row.hold_code].by_folder)
    if not always and not lifted_by(row.hold_code, command):
        raise Refusal(f"{row.title} is held: {row.hold_code}. {HOLDS[row.hold_code].remedy}")
    return row.hold_code


def _lift(connection: Connection, row: Project, accept: HoldCode | None = None) -> None:
    # A folder that waited at the very first scan was approved before anybody knew what it costs: that is asked later.
    unseen = accept is HoldCode.APPROVAL and row.state is State.FOUND
    if accept is not None and not unseen and (acceptances(accept) or accept is HoldCode.MANUAL_START):
        _accept(connection, row, accept)
    table = tables.projects
    # Before the creation the checks decide: they run again, with what was accepted, and so the old report goes.
    report: dict[str, Any] = {"report": None} if row.state is State.SETTLED else {}
    update_one(
        connection,
        table,
        table.c.id == row.id,
        table.c.hold_code == row.hold_code,
        condition=Condition.ACTIVE,
        hold_code=None,
        hold_text=None,
        due_at=None,
        tries=0,
        **report,
    )


def _accept(connection: Connection, row: Project, code: HoldCode) -> None:
    table = tables.projects
    accepted = [*row.accepted, str(code)] if code not in row.accepted else list(row.accepted)
    update_one(connection, table, table.c.id == row.id, accepted=accepted, due_at=None)


def _forget_tries(connection: Connection, project_id: int, *, source: bool) -> None:
    """Give every pending image a fresh start; `source`: those with an error are accepted as they are now."""
    images = tables.images
    pending = (images.c.project_id == project_id, images.c.status == ImageStatus.PENDING)
    if source:
        connection.execute(update(images).where(*pending, images.c.error.is_not(None)).values(look_again=True))
    connection.execute(update(images).where(*pending).values(tries=0, due_at=None, error=None))
    connection.execute(update(tables.outputs).where(tables.outputs.c.project_id == project_id).values(tries=0))


def _undrop(connection: Connection, row: Project) -> str:
    table = tables.projects
    if not row.present and before_create(row.state):
        raise Refusal(
            f"{row.title} is gone from the drop directory, or a part of a mission by now; "
            f"put it back, and it is found as a new folder"
        )
    values: dict[str, Any] = {"condition": Condition.ACTIVE, "due_at": None, "tries": 0}
    if row.state is State.SETTLED:
        # The checks ask again what they asked before, and what has become of it since.
        values |= {"report": None, "hold_code": None, "hold_text": None}
    elif row.hold_code is not None:
        values |= {"condition": Condition.HELD}
    update_one(connection, table, table.c.id == row.id, **values)
    still = f", and still held: {row.hold_code}" if values["condition"] is Condition.HELD else ""
    tell(connection, row.id, "retry", f"taken up again by a person{still}")
    return f"taken up again{still}"


def _decide(connection: Connection, row: Project, *, done: bool) -> None:
    effect = open_effect_of(connection, row.id)
    if effect is None or row.hold_code is not HoldCode.IN_DOUBT:
        raise Refusal(f"{row.title} is not in doubt; there is nothing to decide")
    if done and effect.kind is EffectKind.CREATE:
        raise Refusal(
            f"{row.title}: a created project is found by its marker [{row.marker}]; "
            f"use `retry` to look again, or `retry --not-done` to have a new one made"
        )
    effects = tables.effects
    update_one(
        connection,
        effects,
        effects.c.id == effect.id,
        effects.c.status == EffectStatus.OPEN,
        status=EffectStatus.DONE if done else EffectStatus.UNDONE,
        learnt=Learnt.PERSON,
        note="decided by a person",
        closed_at=now(),
    )
    _lift(connection, row)
    if done and effect.kind is EffectKind.REGISTER:
        images = tables.images
        connection.execute(
            update(images)
            .where(
                images.c.project_id == row.id,
                images.c.batch == effect.part,
                images.c.status == ImageStatus.UPLOADED,
            )
            .values(status=ImageStatus.REGISTERED)
        )
    if done and effect.kind is EffectKind.START:
        advance_in(connection, row.id, State.REGISTERED, State.STARTED, "started, says a person")
    tell(connection, row.id, "decided", f"{effect.kind}: {'done' if done else 'not done'}, says a person")
