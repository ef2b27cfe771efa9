"""Verbs of the effects: the intent before a remote call that must not happen twice, and its outcome after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, insert, select, update

from pix4d_watcher.core.model import Condition, EffectKind, EffectStatus, HoldCode, ImageStatus, Learnt, State
from pix4d_watcher.journal import records, tables
from pix4d_watcher.journal.change import Stale, inserted_id, now, tell, update_one
from pix4d_watcher.journal.projects import Hold, advance_in, hold_in, not_stopped_in

if TYPE_CHECKING:
    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Effect


def intent(
    journal: Journal, project_id: int, kind: EffectKind, state: State, *, request: dict[str, Any], part: int = 0
) -> Effect:
    """Write what is about to be asked; committed before anything leaves this machine.

    Raises Stale when the project is not in `state` any more, when a person stopped it or everything meanwhile, or when
    the folder was frozen anew and its images are not checked again.
    """
    with journal.write() as connection:
        _still(connection, project_id, state)
        return _insert(connection, project_id, kind, part, request)


def intent_of_batch(journal: Journal, project_id: int, *, request: dict[str, Any], most: int | None) -> Effect | None:
    """Write the intent to register the images that are uploaded now, with their keys; None where there is none.

    The batch's number is the next integer and is never computed again. `most` bounds the number of images.
    """
    images = tables.images
    with journal.write() as connection:
        _still(connection, project_id, State.UPLOADED)
        uploaded = connection.execute(
            select(images.c.id, images.c.key)
            .where(images.c.project_id == project_id, images.c.status == ImageStatus.UPLOADED)
            .order_by(images.c.path)
            .limit(most)
        ).all()
        if not uploaded:
            return None
        part = _next_part(connection, project_id)
        for start in range(0, len(uploaded), 500):  # a bound on the number of SQL parameters
            ids = [row.id for row in uploaded[start : start + 500]]
            connection.execute(update(images).where(images.c.id.in_(ids)).values(batch=part))
        keys = [row.key for row in uploaded]
        return _insert(connection, project_id, EffectKind.REGISTER, part, {**request, "keys": keys})


def is_place_taken(journal: Journal, bucket: str, prefix: str, *, but: int) -> bool:
    """Say whether a place in S3, or one around it or below it, belongs to another project than `but`."""
    table = tables.projects.c
    query = select(table.prefix).where(table.bucket == bucket, table.id != but, table.prefix.is_not(None))
    with journal.read() as connection:
        taken = [f"{other}/" for other in connection.execute(query).scalars()]
    return any(f"{prefix}/".startswith(other) or other.startswith(f"{prefix}/") for other in taken)


def created(
    journal: Journal, effect: Effect, learnt: Learnt, *, remote_id: int, name: str, bucket: str, prefix: str, page: str
) -> None:
    """Close the creation: from now on this one project is used and no other."""
    with journal.write() as connection:
        _close(connection, effect, EffectStatus.DONE, learnt=learnt, answer={"id": remote_id})
        advance_in(
            connection,
            effect.project_id,
            State.SETTLED,
            State.CREATED,
            f"project {remote_id} created ({learnt})",
            remote_id=remote_id,
            remote_name=name,
            bucket=bucket,
            prefix=prefix,
            page=page,
        )


def registered(
    journal: Journal, effect: Effect, learnt: Learnt, answer: dict[str, Any], *, hold: Hold | None = None
) -> None:
    """Close a batch: its images are registered. `hold` stops the project at once, so that it never starts unseen."""
    images = tables.images
    with journal.write() as connection:
        _close(connection, effect, EffectStatus.DONE, learnt=learnt, answer=answer)
        count = connection.execute(
            update(images)
            .where(
                images.c.project_id == effect.project_id,
                images.c.batch == effect.part,
                images.c.status == ImageStatus.UPLOADED,
            )
            .values(status=ImageStatus.REGISTERED)
        ).rowcount
        if count != len(effect.request["keys"]):
            raise Stale(f"batch {effect.part} has {count} images instead of {len(effect.request['keys'])}")
        tell(connection, effect.project_id, "batch", f"{count} images registered ({learnt})")
        if hold:
            hold_in(connection, effect.project_id, *hold, due_at=None)


def started(journal: Journal, effect: Effect, learnt: Learnt) -> None:
    """Close the start: processing runs, or is queued, in the cloud."""
    with journal.write() as connection:
        _close(connection, effect, EffectStatus.DONE, learnt=learnt, answer={})
        advance_in(connection, effect.project_id, State.REGISTERED, State.STARTED, f"processing started ({learnt})")


def started_elsewhere(journal: Journal, project_id: int) -> None:
    """Record a start that somebody made in the cloud's own page, as a success of its own that blocks ours."""
    with journal.write() as connection:
        effect = _insert(connection, project_id, EffectKind.START, 0, {"elsewhere": True})
        _close(connection, effect, EffectStatus.DONE, learnt=Learnt.PROBE, answer={})
        text = "processing was started in the cloud's own page"
        advance_in(connection, project_id, State.REGISTERED, State.STARTED, text)


def undone(journal: Journal, effect: Effect, note: str) -> None:
    """Close an effect that surely did not happen; it may be asked again."""
    with journal.write() as connection:
        _close(connection, effect, EffectStatus.UNDONE, note=note)
        tell(connection, effect.project_id, "undone", f"{effect.kind} did not happen: {note}")


def waited(journal: Journal, effect: Effect) -> None:
    """Note that a whole doubt_wait ended without knowledge, so that the next one decides."""
    with journal.write() as connection:
        update_one(
            connection,
            tables.effects,
            tables.effects.c.id == effect.id,
            tables.effects.c.status == EffectStatus.OPEN,
            waits=effect.waits + 1,
        )


def note_twins(journal: Journal, project_id: int, text: str) -> None:
    """Tell of empty projects in the cloud that a creation in doubt may have left; they cost nothing."""
    with journal.write() as connection:
        tell(connection, project_id, "twins", text)


def _still(connection: Connection, project_id: int, state: State) -> None:
    table = tables.projects
    unchecked = table.c.report.is_(None).label("unchecked")
    columns = select(table.c.state, table.c.condition, table.c.hold_code, unchecked)
    row = connection.execute(columns.where(table.c.id == project_id)).one()
    by_itself = row.hold_code == HoldCode.NO_CREDIT
    not_stopped_in(connection, project_id)
    if row.state != state or (row.condition != Condition.ACTIVE and not by_itself):
        raise Stale("the project was stopped or went on meanwhile")
    if row.state == State.SETTLED and row.unchecked:
        raise Stale("the images were not checked since the folder was frozen")


def _next_part(connection: Connection, project_id: int) -> int:
    effects = tables.effects
    last = connection.execute(
        select(func.max(effects.c.part)).where(
            effects.c.project_id == project_id, effects.c.kind == EffectKind.REGISTER
        )
    ).scalar()
    return 1 if last is None else int(last) + 1


def _insert(connection: Connection, project_id: int, kind: EffectKind, part: int, request: dict[str, Any]) -> Effect:
    facts = {
        "project_id": project_id,
        "kind": kind,
        "part": part,
        "status": EffectStatus.OPEN,
        "request": request,
        "waits": 0,
        "asked_at": now(),
    }
    # Not by `values`: the compiled statement is kept with the values it was made of, and these may be 10,000 keys.
    result = connection.execute(insert(tables.effects), facts)
    found = select(tables.effects).where(tables.effects.c.id == inserted_id(result))
    return records.effect(connection.execute(found).mappings().one())


def _close(connection: Connection, effect: Effect, status: EffectStatus, **facts: Any) -> None:
    update_one(
        connection,
        tables.effects,
        tables.effects.c.id == effect.id,
        tables.effects.c.status == EffectStatus.OPEN,
        status=status,
        closed_at=now(),
        **facts,
    )
