"""Facts of the service itself: vitals, settings changed at run time, what it learnt of the cloud."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from pix4d_watcher.journal import tables
from pix4d_watcher.journal.change import now, tell

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pix4d_watcher.journal.database import Journal

PAUSED_ALL = "paused_all"
"""True while a person paused everything."""

COUNTER_TRUSTED = "counter_trusted"
"""True once an answered batch moved `image_count` by its size: from then on the old count means "not done"."""

RUNNING = "running"
"""Set at start and cleared at a clean end: found set, the last end was unclean."""

VITALS = "vitals"
"""What the service says of itself every few seconds; see `service.py`."""

MEASURED_THROUGHPUT = "measured_throughput"
"""What this link did when it was last busy: bytes_per_second, and at (seconds since 1970)."""

RESTORED = "restored"
"""What a restored journal knows of itself; see `restored.py`."""


def put(journal: Journal, name: str, value: Any, *, event: str = "") -> None:
    """Keep one fact; `event` is told to people where it is given."""
    table = tables.service
    with journal.write() as connection:
        changed = connection.execute(update(table).where(table.c.name == name).values(value=value, at=now())).rowcount
        if not changed:
            connection.execute(insert(table).values(name=name, value=value, at=now()))
        if event:
            tell(connection, None, name, event)


def get(journal: Journal, name: str, default: Any = None) -> Any:
    """Read one fact, `default` where it was never set."""
    with journal.read() as connection:
        return get_in(connection, name, default)


def get_in(connection: Connection, name: str, default: Any = None) -> Any:
    """Do the same inside the transaction of another verb."""
    table = tables.service
    row = connection.execute(select(table.c.value).where(table.c.name == name)).first()
    return default if row is None or row.value is None else row.value
