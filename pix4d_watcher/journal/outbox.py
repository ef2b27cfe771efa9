"""What commands are told: one row for each delivery and each hold, written with the fact itself in one transaction.

Owns the rows. Runs nothing, and does not know which commands are configured.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, insert, or_, select

from pix4d_watcher.journal import tables
from pix4d_watcher.journal.change import now, tell, update_one

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

    from pix4d_watcher.core.model import HoldCode
    from pix4d_watcher.journal.database import Journal

_O = tables.outbox.c

DELIVERED, HELD = "delivered", "held"
"""The kinds of rows, as the commands `on_delivered` and `on_held` are named after them."""

TOLD_ONE_BY_ONE = 10
"""Folders held by one scan up to which there is a row for each: an archive of years must not become 5,000 messages."""


@dataclass(frozen=True, slots=True)
class Post:
    """A row of `tables.outbox`: what happened to a project, and how often telling it failed."""

    id: int
    project_id: int
    kind: str
    facts: dict[str, Any]
    at: float
    due_at: float | None
    tries: int
    error: str | None
    done_at: float | None


def delivered(connection: Connection, project_id: int) -> None:
    """Note a delivery inside the transaction that records it."""
    _insert(connection, project_id, DELIVERED, {})


def held(connection: Connection, project_id: int, code: HoldCode, text: str) -> None:
    """Note a hold inside the transaction that records it, also one that ends by itself: people can end it sooner."""
    _insert(connection, project_id, HELD, {"code": str(code), "text": text})


def held_together(connection: Connection, ids: Sequence[int], code: HoldCode, text: str) -> None:
    """Note that one scan held so many folders; beyond ten only the first is told of: its text counts the others."""
    for project_id in ids if len(ids) <= TOLD_ONE_BY_ONE else ids[:1]:
        held(connection, project_id, code, text)


def next_due(journal: Journal, at: float, horizon: float) -> Post | None:
    """Give the oldest row that is due at `at`; due, too, is one more than `horizon` seconds ahead: the clock jumped."""
    due = or_(_O.due_at.is_(None), _O.due_at <= at, _O.due_at > at + horizon)
    query = select(tables.outbox).where(_O.done_at.is_(None), due).order_by(_O.id).limit(1)
    with journal.read() as connection:
        row = connection.execute(query).mappings().first()
    return None if row is None else _post(row)


def succeeded(journal: Journal, post: Post, text: str) -> None:
    """Close a row whose command succeeded."""
    with journal.write() as connection:
        _close(connection, post, tries=post.tries + 1, error=None)
        tell(connection, post.project_id, "hook", text)


def unheard(journal: Journal, post: Post) -> None:
    """Close a row for which no command is configured."""
    with journal.write() as connection:
        _close(connection, post, tries=post.tries, error=None)


def failed(journal: Journal, post: Post, error: str, *, due_at: float) -> None:
    """Note a failed try and when the next one comes."""
    with journal.write() as connection:
        open_row = (_O.id == post.id, _O.done_at.is_(None))
        update_one(connection, tables.outbox, *open_row, tries=post.tries + 1, error=error, due_at=due_at)
        tell(connection, post.project_id, "hook", error)


def given_up(journal: Journal, post: Post, error: str) -> None:
    """Close a row whose command failed too often; it stays in sight, see `troubles`."""
    with journal.write() as connection:
        _close(connection, post, tries=post.tries + 1, error=error)
        tell(connection, post.project_id, "hook", f"given up: {error}")


def troubles(journal: Journal) -> list[Post]:
    """List what fails, and what was given up since the last success of its kind; the oldest first."""
    ran_well = and_(_O.done_at.is_not(None), _O.error.is_(None), _O.tries > 0)
    successes = select(_O.kind, func.max(_O.id)).where(ran_well).group_by(_O.kind)
    failures = select(tables.outbox).where(_O.error.is_not(None)).order_by(_O.id)
    with journal.read() as connection:
        last = {kind: int(number) for kind, number in connection.execute(successes).all()}
        posts = [_post(row) for row in connection.execute(failures).mappings()]
    return [post for post in posts if post.done_at is None or post.id > last.get(post.kind, 0)]


def _insert(connection: Connection, project_id: int, kind: str, facts: dict[str, Any]) -> None:
    row = {"project_id": project_id, "kind": kind, "facts": facts, "at": now(), "tries": 0}
    connection.execute(insert(tables.outbox), row)


def _close(connection: Connection, post: Post, *, tries: int, error: str | None) -> None:
    open_row = (_O.id == post.id, _O.done_at.is_(None))
    update_one(connection, tables.outbox, *open_row, tries=tries, error=error, done_at=now(), due_at=None)


def _post(row: RowMapping) -> Post:
    return Post(**{field.name: row[field.name] for field in fields(Post)})
