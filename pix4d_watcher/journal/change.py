"""What all verbs share: an update that must change exactly one row, and the event that tells a person of it."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, update

from pix4d_watcher.core.errors import Cure, JournalError, Scope
from pix4d_watcher.journal import tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import ColumnElement, Connection, CursorResult, Table, Update, UpdateBase


ROWS_AT_ONCE = 500


class Stale(JournalError):
    """The fact that a verb builds on is not true any more (a person or another thread changed it): look again."""

    scope = Scope.PROJECT
    cure = Cure.RETRY


def now() -> float:
    """The wall clock, for people and for due times; never to decide a wait."""
    return time.time()


def update_one(connection: Connection, table: Table, *expect: ColumnElement[bool], **values: Any) -> None:
    """Update the row that meets every expectation; raises Stale unless it is exactly one."""
    changed_one(connection, update(table).where(*expect).values(**values))


def changed_one(connection: Connection, statement: Update, facts: Mapping[str, Any] | None = None) -> None:
    """Execute an update, with `facts` for its parameters; raises Stale unless it changes exactly one row."""
    changed = connection.execute(statement, facts).rowcount
    if changed != 1:
        raise Stale(f"{statement.table}: {changed} rows instead of one; somebody else changed it first")


def execute_many(connection: Connection, statement: UpdateBase, rows: Iterable[Mapping[str, Any]]) -> None:
    """Execute a statement once for each row, some at a time: memory that 10,000 rows took is not given back."""
    rows = iter(rows)
    while some := list(islice(rows, ROWS_AT_ONCE)):
        connection.execute(statement, some)


def inserted_id(result: CursorResult[Any]) -> int:
    """Return the id that the database gave to the inserted row."""
    assert result.inserted_primary_key is not None
    return int(result.inserted_primary_key[0])


def tell(connection: Connection, project_id: int | None, kind: str, text: str) -> None:
    """Write the event row; nothing ever decides by reading it."""
    connection.execute(insert(tables.events), {"at": now(), "project_id": project_id, "kind": kind, "text": text})
