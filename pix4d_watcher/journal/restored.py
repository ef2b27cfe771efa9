"""A journal that was restored from a backup: what it may have missed, and the facts that were learnt of it since.

Whatever was asked of the cloud between the backup and the restore is not in it. So its projects are compared with the
cloud before anything is sent, creations and starts are looked up before they are asked, and folders that it does not
know are held before they are created. Reads and writes the journal only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, insert, select, update

from pix4d_watcher.core.machine import ORDER
from pix4d_watcher.core.model import (
    Condition,
    EffectKind,
    EffectStatus,
    HoldCode,
    ImageStatus,
    Learnt,
    State,
    printable,
)
from pix4d_watcher.journal import orphans, records, service, tables
from pix4d_watcher.journal.change import execute_many, now, tell, update_one
from pix4d_watcher.journal.projects import advance_in, hold_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Effect, Image, Project

_P, _I, _E = tables.projects.c, tables.images.c, tables.effects.c
_FIRST_SCAN = "first scan after the restore: "
_LATE = "was not registered when processing had started"


@dataclass(frozen=True, slots=True)
class Restored:
    """When (s since 1970) the journal was restored, and the last project and effect that the backup knew.

    `compared`: its projects were compared with the cloud since.
    """

    at: float
    last_project: int
    last_effect: int
    compared: bool


def mark(journal: Journal, roots: Iterable[str]) -> None:
    """Write into a backup, before it takes the journal's place, that it is one; `roots` are the drop directories."""
    with journal.read() as connection:
        last = [int(connection.execute(select(func.max(column))).scalar() or 0) for column in (_P.id, _E.id)]
    # Keys may have been in use after the backup; a file that is frozen anew must not get the same one.
    with journal.write() as connection:
        going_on = select(_P.id).where(_P.state != State.DELIVERED)
        sent = update(tables.images).where(_I.project_id.in_(going_on), _I.key.is_not(None))
        connection.execute(sent.values(begun=True))
    for root in roots:
        service.put(journal, _FIRST_SCAN + root, {"until": None})
    fact = {"at": now(), "last_project": last[0], "last_effect": last[1], "compared": False}
    service.put(journal, service.RESTORED, fact, event="the journal was restored from a backup")


def facts(journal: Journal) -> Restored | None:
    """Say what is known of the restore; None where the journal never was."""
    found = service.get(journal, service.RESTORED)
    return None if found is None else Restored(**found)


def compared(journal: Journal, *, done: bool) -> None:
    """Note that all projects were compared with the cloud, or that one must be again."""
    found = service.get(journal, service.RESTORED)
    event = "the restored journal was compared with the cloud" if done else ""
    service.put(journal, service.RESTORED, {**found, "compared": done}, event=event)


def to_compare(journal: Journal) -> list[Project]:
    """List the projects that may have gone on after the backup: created, not yet started, not given up."""
    between = [State.CREATED, State.UPLOADED, State.REGISTERED]
    query = select(tables.projects).where(_P.state.in_(between), _P.condition != Condition.DROPPED).order_by(_P.id)
    with journal.read() as connection:
        return [records.project(row) for row in connection.execute(query).mappings()]


def root_scanned(journal: Journal, root: str) -> None:
    """Note the end of the first full scan of a drop directory after the restore."""
    if service.get(journal, _FIRST_SCAN + root, {}).get("until", 0) is None:
        service.put(journal, _FIRST_SCAN + root, {"until": now()})


def is_unknown_to_backup(journal: Journal, project: Project) -> bool:
    """Say whether a folder lay there at the first scan after the restore and is not in the backup.

    It may have been sent in between. Told by when it was found, which all parts of a split folder share.
    """
    found = facts(journal)
    if found is None or project.id <= found.last_project:
        return False
    until = service.get(journal, _FIRST_SCAN + project.root, {"until": 0.0})["until"]
    return until is None or project.found_at <= until


def may_have_happened(journal: Journal, project: Project, kind: EffectKind) -> bool:
    """Say whether a call may have been made after the backup: the project is in it, and nothing was learnt since."""
    found = facts(journal)
    if found is None or project.id > found.last_project:
        return False
    later = select(_E.id).where(_E.project_id == project.id, _E.kind == kind, _E.id > found.last_effect)
    with journal.read() as connection:
        return connection.execute(later.limit(1)).first() is None


def is_from_before(journal: Journal, effect: Effect) -> bool:
    """Say whether the outcome of an effect is to be learnt of a time that the journal does not know."""
    found = facts(journal)
    return found is not None and (effect.id <= found.last_effect or bool(effect.request.get("restored")))


def caught_up(
    journal: Journal,
    project: Project,
    images: Sequence[Image],
    text: str,
    *,
    started: bool,
    late: Sequence[Image] = (),
) -> None:
    """Write what the cloud shows to have happened after the backup: these images are registered, perhaps it started.

    An open effect is closed as done where this answers it; a hold that the project is past is lifted. Images in `late`
    were not registered when it started: they are not sent, and the project is held for a person to see that.
    """
    with journal.write() as connection:
        answered = _answer_open_effect(connection, project, images, started=started)
        left = [image for image in images if not answered or image.key not in answered.request.get("keys", ())]
        if left:
            part = _next_part(connection, project.id)
            execute_many(
                connection,
                update(tables.images).where(_I.id == bindparam("this")).values(batch=part),
                [{"this": image.id} for image in left],
            )
            _insert(connection, project.id, EffectKind.REGISTER, part, {"keys": [image.key for image in left]})
        done = update(tables.images).where(_I.id == bindparam("this"))
        execute_many(
            connection,
            done.values(status=ImageStatus.REGISTERED, error=None, due_at=None),
            [{"this": image.id} for image in images],
        )
        skipped = {"status": ImageStatus.SKIPPED, "reason": _LATE, "error": None, "due_at": None}
        execute_many(connection, done.values(**skipped), [{"this": image.id} for image in late])
        settled = [ImageStatus.REGISTERED, ImageStatus.SKIPPED]
        orphans.leave_in(connection, _I.project_id == project.id, _I.status.in_(settled))
        tell(connection, project.id, "restored", text)
        if started:
            if answered is None or answered.kind is not EffectKind.START:
                _insert(connection, project.id, EffectKind.START, 0, {})
            _lift(connection, project.id)
            _advance_to_started(connection, project)
            if late:
                shown = ", ".join(printable(image.path) for image in late[:3]) + (" …" if len(late) > 3 else "")
                why = f"{len(late)} images were not registered when processing was started: {shown}"
                hold_in(connection, project.id, HoldCode.LATE_IMAGES, why, due_at=None)
        elif answered is not None and project.hold_code is HoldCode.IN_DOUBT:
            _lift(connection, project.id)


def _answer_open_effect(
    connection: Connection, project: Project, images: Sequence[Image], *, started: bool
) -> Effect | None:
    query = select(tables.effects).where(_E.project_id == project.id, _E.status == EffectStatus.OPEN)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    effect = records.effect(row)
    registered = {image.key for image in images}
    if effect.kind is EffectKind.REGISTER and not (started or registered.issuperset(effect.request["keys"])):
        return None
    if effect.kind is EffectKind.START and not started:
        return None
    happened = effect.kind is not EffectKind.REGISTER or registered.issuperset(effect.request["keys"])
    status = EffectStatus.DONE if happened else EffectStatus.UNDONE
    closed = {"status": status, "learnt": Learnt.PROBE, "answer": {}, "closed_at": now()}
    update_one(connection, tables.effects, _E.id == effect.id, _E.status == EffectStatus.OPEN, **closed)
    return effect if happened else None


def _insert(connection: Connection, project_id: int, kind: EffectKind, part: int, request: dict[str, Any]) -> None:
    """Write an effect that happened after the backup, as a success of its own that blocks ours."""
    facts: dict[str, Any] = {
        "project_id": project_id,
        "kind": kind,
        "part": part,
        "status": EffectStatus.DONE,
        "request": {**request, "restored": True},
        "answer": {},
        "learnt": Learnt.PROBE,
        "waits": 0,
        "asked_at": now(),
        "closed_at": now(),
    }
    connection.execute(insert(tables.effects), facts)


def _next_part(connection: Connection, project_id: int) -> int:
    parts = select(func.max(_E.part)).where(_E.project_id == project_id, _E.kind == EffectKind.REGISTER)
    return int(connection.execute(parts).scalar() or 0) + 1


def _lift(connection: Connection, project_id: int) -> None:
    clear = {"hold_code": None, "hold_text": None, "due_at": None, "tries": 0}
    held = (_P.id == project_id, _P.condition == Condition.HELD)
    connection.execute(update(tables.projects).where(*held).values(condition=Condition.ACTIVE, **clear))


def _advance_to_started(connection: Connection, project: Project) -> None:
    before, last = ORDER.index(project.state), ORDER.index(State.STARTED)
    for state, following in zip(ORDER[before:last], ORDER[before + 1 : last + 1], strict=True):
        advance_in(connection, project.id, state, following, "seen in the cloud after the restore")
