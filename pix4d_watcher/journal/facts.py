"""Verb about what decoding showed of images, before anything is sent."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, update

from pix4d_watcher.core.model import State, printable
from pix4d_watcher.journal import tables
from pix4d_watcher.journal.change import changed_one, tell, update_one

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pix4d_watcher.core.model import FrozenImage
    from pix4d_watcher.journal.database import Journal

_I = tables.images.c
_ONE = (
    update(tables.images)
    .where(_I.project_id == bindparam("project"), _I.path == bindparam("at"), _I.sha256 == bindparam("digest"))
    .values(facts=bindparam("known"))
)


def decoded(journal: Journal, project_id: int, images: Sequence[FrozenImage], *, waiting: str, due_at: float) -> None:
    """Write the facts of images that were decoded, and what the project waits for until `due_at`.

    Raises Stale when the folder was frozen anew meanwhile, or went on.
    """
    table = tables.projects
    with journal.write() as connection:
        update_one(
            connection,
            table,
            table.c.id == project_id,
            table.c.state == State.SETTLED,
            waiting_for=waiting,
            due_at=due_at,
            tries=0,
            error=None,
        )
        for image in images:
            row = {"project": project_id, "at": image.path, "digest": image.sha256, "known": asdict(image.facts)}
            changed_one(connection, _ONE, row)
            if image.facts.problem:
                tell(connection, project_id, "damaged", f"{printable(image.path)}: {image.facts.detail}")
