"""What only reads: due work for the engine, idleness, and the tables that people see."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, and_, bindparam, case, exists, func, or_, select

from pix4d_watcher.core.machine import HOLDS, with_name
from pix4d_watcher.core.model import Condition, EffectStatus, HoldCode, ImageStatus, State, printable
from pix4d_watcher.journal import records, service, tables
from pix4d_watcher.journal.naming import NEWEST
from pix4d_watcher.journal.people import open_effect_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import ColumnElement, Connection

    from pix4d_watcher.core.model import FrozenImage
    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Effect, Image, Output, Project, Root

_SELF_LIFTING = [code for code, hold in HOLDS.items() if hold.by_itself]
_MOVING = [state for state in State if state not in (State.FOUND, State.DELIVERED)]
_P, _I, _E, _O = tables.projects.c, tables.images.c, tables.effects.c, tables.outputs.c
_HAS_OPEN_EFFECT = exists().where(_E.project_id == _P.id, _E.status == EffectStatus.OPEN)

# Asked for every single image: building these anew costs more than asking them.
_ONE_PROJECT = select(tables.projects).where(_P.id == bindparam("id"))
_ONE_IMAGE = select(tables.images).where(_I.id == bindparam("id"))
_UPLOADING = (
    select(_P.id)
    .where(_P.state == State.CREATED, _P.condition == Condition.ACTIVE, ~_P.paused)
    .order_by(_P.found_at, _P.id)
)
# One project after the other, in the order of the index: one query over all would sort every pending image.
_PENDING = (
    select(tables.images)
    .where(
        _I.project_id == bindparam("project_id"),
        _I.status == ImageStatus.PENDING,
        or_(_I.due_at.is_(None), _I.due_at <= bindparam("now"), _I.due_at > bindparam("latest")),
    )
    .order_by(_I.id)
    .limit(bindparam("most", type_=Integer))
)


_DUE = (
    or_(
        and_(_P.condition == Condition.ACTIVE, _P.state.in_(_MOVING), ~_P.paused),
        and_(_P.condition == Condition.HELD, _P.hold_code.in_(_SELF_LIFTING), _P.state != State.FOUND, ~_P.paused),
        and_(_P.condition == Condition.DROPPED, _HAS_OPEN_EFFECT),
    ),
    or_(_P.due_at.is_(None), _P.due_at <= bindparam("now"), _P.due_at > bindparam("latest")),
)
_IS_ABSENT = exists().where(tables.roots.c.name == _P.root, ~tables.roots.c.present)
_ABSENT = select(tables.roots.c.name, tables.roots.c.problem).where(~tables.roots.c.present)
_DUE_NUMBERS = select(_P.id, _P.state).where(*_DUE).order_by(_P.found_at, _P.id)


def due_numbers(journal: Journal, now: float, horizon: float) -> list[tuple[int, State]]:
    """List the numbers and states of what `due` lists; asked after every step, when hundreds may be due."""
    with journal.read() as connection:
        rows = connection.execute(_DUE_NUMBERS, {"now": now, "latest": now + horizon}).all()
    return [(row.id, State(row.state)) for row in rows]


def due(journal: Journal, now: float, horizon: float, *, only: int | None = None) -> list[Project]:
    """List the projects whose step is due, oldest first; `only` asks about one project.

    A due time more than `horizon` seconds ahead is due now: the wall clock jumped. Dropped projects come only while
    an effect of theirs is open (paused or not, since it is only asked for), so that a twin in the cloud becomes known;
    held ones only if the hold lifts by itself.
    """
    query = select(tables.projects).where(*_DUE).order_by(_P.found_at, _P.id)
    if only is not None:
        query = query.where(_P.id == only)
    with journal.read() as connection:
        rows = connection.execute(query, {"now": now, "latest": now + horizon}).mappings()
        return [records.project(row) for row in rows]


def project(journal: Journal, project_id: int) -> Project:
    """Read one project."""
    with journal.read() as connection:
        return records.project(connection.execute(_ONE_PROJECT, {"id": project_id}).mappings().one())


def open_effect(journal: Journal, project_id: int) -> Effect | None:
    """Read the effect of a project whose outcome is not known."""
    with journal.read() as connection:
        return open_effect_of(connection, project_id)


def known_remote_ids(journal: Journal) -> list[int]:
    """List the ids of all projects that are surely in the cloud."""
    with journal.read() as connection:
        return list(connection.execute(select(_P.remote_id).where(_P.remote_id.is_not(None))).scalars())


def to_upload(journal: Journal, now: float, horizon: float, *, but: Collection[int], most: int) -> list[Image]:
    """List the next images to send, the oldest project's first, leaving out those whose id is in `but`."""
    wanted = {"now": now, "latest": now + horizon, "most": most + len(but)}
    found: list[Image] = []
    with journal.read() as connection:
        for project_id in connection.execute(_UPLOADING).scalars().all():
            rows = connection.execute(_PENDING, {"project_id": project_id, **wanted}).mappings()
            found += [records.image(row) for row in rows if row["id"] not in but]
            if len(found) >= most:
                break
    return found[:most]


def image(journal: Journal, image_id: int) -> Image:
    """Read one image."""
    with journal.read() as connection:
        return records.image(connection.execute(_ONE_IMAGE, {"id": image_id}).mappings().one())


def images_of(journal: Journal, project_id: int) -> list[Image]:
    """List all images of a project in the order of their paths."""
    query = select(tables.images).where(_I.project_id == project_id).order_by(_I.path)
    with journal.read() as connection:
        return [records.image(row) for row in connection.execute(query).mappings()]


def frozen_of(journal: Journal, project_id: int) -> list[FrozenImage]:
    """List all images of a project as they were frozen, in the order of their paths."""
    query = select(tables.images).where(_I.project_id == project_id).order_by(_I.path)
    with journal.read() as connection:
        return [records.image(row).frozen for row in connection.execute(query).mappings()]


def registered_of(journal: Journal, project_id: int) -> list[tuple[bytes, bytes, int, str]]:
    """List path, SHA-256, size in bytes and key of each registered image, in the order of their paths."""
    query = (
        select(_I.path, _I.sha256, _I.size, _I.key)
        .where(_I.project_id == project_id, _I.status == ImageStatus.REGISTERED)
        .order_by(_I.path)
    )
    with journal.read() as connection:
        return [(row.path, row.sha256, row.size, row.key) for row in connection.execute(query)]


def counts(journal: Journal, project_id: int) -> dict[ImageStatus, int]:
    """Count a project's images by status."""
    query = select(_I.status, func.count()).where(_I.project_id == project_id).group_by(_I.status)
    with journal.read() as connection:
        found = {ImageStatus(status): int(count) for status, count in connection.execute(query).all()}
    return {status: found.get(status, 0) for status in ImageStatus}


def outputs_of(journal: Journal, project_id: int) -> list[Output]:
    """List the outputs of a project."""
    query = select(tables.outputs).where(_O.project_id == project_id).order_by(_O.id)
    with journal.read() as connection:
        return [records.output(row) for row in connection.execute(query).mappings()]


def folders_of(journal: Journal, root: str) -> list[Project]:
    """List the projects of a drop directory whose folder was there at the last full scan."""
    query = select(tables.projects).where(_P.root == root, _P.present).order_by(_P.id)
    with journal.read() as connection:
        return [records.project(row) for row in connection.execute(query).mappings()]


def root(journal: Journal, name: str) -> Root | None:
    """Read what is known of a drop directory; None before its first scan."""
    with journal.read() as connection:
        row = connection.execute(select(tables.roots).where(tables.roots.c.name == name)).mappings().first()
    return records.root(row) if row else None


def all_roots(journal: Journal) -> list[Root]:
    """List the drop directories that were ever scanned."""
    with journal.read() as connection:
        return [
            records.root(row)
            for row in connection.execute(select(tables.roots).order_by(tables.roots.c.name)).mappings()
        ]


def busy(journal: Journal) -> str | None:
    """Say what keeps the service from being idle, None if nothing does.

    Held, dropped and paused projects count as idle; a folder without images does, too, and one that cannot become
    complete since its drop directory is away. An open effect counts while it is looked up by itself, but not where only
    a person can go on (`in_doubt`, paused): nothing would ever end that.
    """
    projects = select(tables.projects).order_by(_P.found_at, _P.id).limit(1)
    waiting = and_(_P.state == State.FOUND, _P.seen_images > 0, ~_IS_ABSENT)
    moving = projects.where(_P.condition == Condition.ACTIVE, ~_P.paused, or_(_P.state.in_(_MOVING), waiting))
    looked_up = or_(
        _P.condition == Condition.DROPPED,
        and_(_P.condition == Condition.HELD, _P.hold_code.in_(_SELF_LIFTING), ~_P.paused),
    )
    with journal.read() as connection:
        row = connection.execute(moving).mappings().first()
        if row:
            return f"{records.project(row).title} is {row['state']}"
        row = connection.execute(projects.where(_HAS_OPEN_EFFECT, looked_up)).mappings().first()
        if row:
            return f"{records.project(row).title}: the outcome of a call to the cloud is not known yet"
    return None


def status(journal: Journal, ids: Collection[int] | None = None) -> list[dict[str, Any]]:
    """Give every project as the fixed JSON of `status --json` shows it, oldest first, with additions."""
    with journal.read() as connection:
        query = select(tables.projects, NEWEST.label("newest")).order_by(_P.found_at, _P.id)
        if ids is not None:
            query = query.where(_P.id.in_(list(ids)))
        found = [(records.project(row), row["newest"]) for row in connection.execute(query).mappings()]
        images = _image_sums(connection, ids)
        outputs = _output_sums(connection, ids)
        absent = {row.name: row.problem for row in connection.execute(_ABSENT)}
    paused = bool(service.get(journal, service.PAUSED_ALL, default=False))
    return [
        _as_json(
            row,
            row.numbered if newest > 1 else row.title,
            images.get(row.id, {}),
            outputs.get(row.id, (0, 0)),
            _hold(row, absent, paused_all=paused),
        )
        for row, newest in found
    ]


def _image_sums(connection: Connection, ids: Collection[int] | None) -> dict[int, dict[str, int]]:
    def number(condition: ColumnElement[bool]) -> Any:
        return func.sum(case((condition, 1), else_=0))

    sent = _I.status.in_([ImageStatus.UPLOADED, ImageStatus.REGISTERED])
    wanted = _I.status != ImageStatus.SKIPPED
    query = select(
        _I.project_id,
        func.count().label("total"),
        *(number(_I.status == status).label(str(status)) for status in ImageStatus),
        number(and_(_I.status == ImageStatus.PENDING, _I.tries > 0, _I.error.is_not(None))).label("failed"),
        func.sum(case((wanted, _I.size), else_=0)).label("bytes_total"),
        func.sum(case((sent, _I.size), else_=0)).label("bytes_uploaded"),
    ).group_by(_I.project_id)
    if ids is not None:
        query = query.where(_I.project_id.in_(list(ids)))
    # PostgreSQL sums large integers as decimals, which are no JSON.
    rows = connection.execute(query).mappings()
    return {row["project_id"]: {name: int(value) for name, value in row.items()} for row in rows}


def _output_sums(connection: Connection, ids: Collection[int] | None) -> dict[int, tuple[int, int]]:
    query = select(_O.project_id, func.count(), func.sum(case((_O.fetched, 1), else_=0))).group_by(_O.project_id)
    if ids is not None:
        query = query.where(_O.project_id.in_(list(ids)))
    return {row[0]: (int(row[1]), int(row[2])) for row in connection.execute(query).all()}


def _hold(row: Project, absent: Mapping[str, str], *, paused_all: bool) -> dict[str, Any] | None:
    if row.condition is Condition.HELD:
        return {"code": row.hold_code, "text": row.hold_text or ""}
    if row.condition is Condition.DROPPED or row.state is State.DELIVERED:
        return None
    if row.paused:
        return {"code": "paused", "text": "paused by a person; to go on: pix4d-watcher resume FOLDER"}
    if paused_all:
        return {"code": "paused", "text": "everything is paused by a person; to go on: pix4d-watcher resume --all"}
    if row.state is State.FOUND and row.root in absent:
        # Nobody looks into it meanwhile, so nobody holds it either.
        return {"code": HoldCode.MEDIA_ABSENT, "text": absent[row.root]}
    return None


def _as_json(
    row: Project, name: str, images: dict[str, int], outputs: tuple[int, int], hold: dict[str, Any] | None
) -> dict[str, Any]:
    # Before the folder is frozen there are no rows: what the scan saw so far is all pending.
    seen = row.seen_images if row.state is State.FOUND else 0
    waiting_for = row.waiting_for or (row.error if row.due_at else None)
    return {
        "root": row.root,
        "folder": printable(row.folder),
        "round": row.round,
        "state": row.state,
        "condition": row.condition,
        "hold": hold and {**hold, "text": with_name(hold["text"], name)},
        "remote_id": row.remote_id,
        "images": {
            "total": images.get("total", seen),
            "pending": images.get("pending", seen),
            **{name: images.get(name, 0) for name in ("uploaded", "registered", "skipped", "failed")},
        },
        "bytes": {"total": images.get("bytes_total", 0), "uploaded": images.get("bytes_uploaded", 0)},
        "waiting_for": waiting_for and with_name(waiting_for, name),
        "due_at": moment(row.due_at),
        "outputs": {"total": outputs[0], "fetched": outputs[1]},
        "title": name,
        "paused": row.paused,
        "present": row.present,
        "members": row.members,
        "part": row.split_part,
        "parts": row.split_of,
        "name": row.remote_name,
        "page": row.page,
        "cloud_status": row.cloud_status,
        "credits": (row.report or {}).get("credits"),
        "tries": row.tries,
        "error": row.error,
        "found_at": moment(row.found_at),
        "delivered_at": moment(row.delivered_at),
        "put_away": row.put_away and row.put_away.partition(" ")[0],
        "id": row.id,
    }


def moment(seconds: float | None) -> str | None:
    """Show seconds since 1970 as ISO 8601 in UTC."""
    if seconds is None:
        return None
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def effects_of(journal: Journal, project_id: int) -> list[Effect]:
    """List the effects of a project, oldest first."""
    query = select(tables.effects).where(_E.project_id == project_id).order_by(_E.id)
    with journal.read() as connection:
        return [records.effect(row) for row in connection.execute(query).mappings()]


def events_of(journal: Journal, project_id: int, most: int) -> list[tuple[float, str, str]]:
    """List the last events of a project, oldest first: when, kind, text."""
    events = tables.events.c
    query = (
        select(events.at, events.kind, events.text)
        .where(events.project_id == project_id)
        .order_by(events.id.desc())
        .limit(most)
    )
    with journal.read() as connection:
        return [(row.at, row.kind, row.text) for row in connection.execute(query).all()][::-1]


def last_event(journal: Journal, kinds: Collection[str] = (), *, after: int = 0) -> int:
    """Return the number of the newest event of these kinds (of any, where none is named), 0 for none.

    Kinds have no index: with them only what came `after` an event that was seen is quick to ask for.
    """
    query = select(func.max(tables.events.c.id))
    if after:
        query = query.where(tables.events.c.id > after)
    if kinds:
        query = query.where(tables.events.c.kind.in_(list(kinds)))
    with journal.read() as connection:
        return int(connection.execute(query).scalar() or 0)


def paths_of(journal: Journal, project_id: int) -> dict[bytes, int]:
    """Map the path of each image of a project to its size in bytes."""
    query = select(_I.path, _I.size).where(_I.project_id == project_id)
    with journal.read() as connection:
        return {row.path: int(row.size) for row in connection.execute(query).all()}


def versions_of(journal: Journal, project_id: int) -> dict[bytes, tuple[int, int, bytes]]:
    """Map the path of each image of a project to its size (bytes), mtime (ns) and SHA-256."""
    query = select(_I.path, _I.size, _I.mtime_ns, _I.sha256).where(_I.project_id == project_id)
    with journal.read() as connection:
        return {row.path: (int(row.size), row.mtime_ns, row.sha256) for row in connection.execute(query).all()}
