"""Verbs of the results: their place, outputs that the cloud offers and those that lie on our disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from pix4d_watcher.journal import tables
from pix4d_watcher.journal.change import tell, update_one

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Output, Project


OWN_NAMES = frozenset({"report.json", "pix4d-receipt.json", ".complete"})
"""Files of ours that lie beside the outputs; an output of such a name gets a number."""


@dataclass(frozen=True, slots=True)
class Offered:
    """An output that the cloud offers for download."""

    ident: str
    kind: str
    name: str
    bucket: str
    key: str
    region: str | None


def placed(journal: Journal, project: Project) -> bool:
    """Have a project keep the place of its results, however its folder is renamed; False where it is another's.

    Raises Stale when the folder was renamed meanwhile.
    """
    table, name = tables.projects.c, project.results_name
    with journal.write() as connection:
        others = select(table.id).where(table.root == project.root, table.results_folder == name)
        if connection.execute(others).first() is not None:
            return False
        same = (table.id == project.id, table.folder == project.folder, table.round == project.round)
        update_one(connection, tables.projects, *same, results_folder=name)
        return True


def offered(journal: Journal, project_id: int, outputs: Sequence[Offered]) -> int:
    """Add the outputs that are not known yet, each under a file name of its own; returns how many are new."""
    table = tables.outputs
    with journal.write() as connection:
        known = connection.execute(select(table.c.ident, table.c.name).where(table.c.project_id == project_id)).all()
        idents = {row.ident for row in known}
        names = {row.name.casefold() for row in known} | OWN_NAMES
        fresh = [output for output in outputs if output.ident not in idents]
        for output in fresh:
            name = _free_name(output.name, names)
            names.add(name.casefold())
            connection.execute(
                insert(table).values(
                    project_id=project_id,
                    ident=output.ident,
                    kind=output.kind,
                    name=name,
                    bucket=output.bucket,
                    key=output.key,
                    region=output.region,
                    fetched=False,
                    tries=0,
                )
            )
        if fresh:
            tell(connection, project_id, "outputs", f"{len(fresh)} results to fetch")
    return len(fresh)


def _free_name(name: str, taken: set[str]) -> str:
    stem, dot, suffix = name.rpartition(".")
    if not stem:
        stem, dot, suffix = name, "", ""
    number, candidate = 1, name
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{stem}_{number}{dot}{suffix}"
    return candidate


def sized(journal: Journal, output: Output, *, size: int, etag: str) -> None:
    """Note the size in bytes and the ETag of an output, so that a download continues only in the same object."""
    with journal.write() as connection:
        update_one(connection, tables.outputs, tables.outputs.c.id == output.id, size=size, etag=etag)


def fetched(journal: Journal, output: Output) -> None:
    """Record an output that lies complete and flushed under its name."""
    with journal.write() as connection:
        update_one(connection, tables.outputs, tables.outputs.c.id == output.id, fetched=True, error=None)
        tell(connection, output.project_id, "fetched", output.name)


def not_fetched(journal: Journal, output: Output, error: str) -> None:
    """Note a failed try of one download."""
    table = tables.outputs
    with journal.write() as connection:
        connection.execute(update(table).where(table.c.id == output.id).values(error=error, tries=output.tries + 1))
        if output.error != error:
            tell(connection, output.project_id, "output", f"{output.name}: {error}")


def replaced(journal: Journal, output: Output, error: str) -> None:
    """Note that the object changed or went away in the cloud: a later download begins from nothing."""
    table = tables.outputs
    with journal.write() as connection:
        update_one(
            connection, table, table.c.id == output.id, size=None, etag=None, error=error, tries=output.tries + 1
        )
        tell(connection, output.project_id, "output", f"{output.name}: {error}")
