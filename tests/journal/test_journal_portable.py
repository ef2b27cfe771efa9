"""Only `database` knows that the journal is SQLite: everything else is said so that PostgreSQL takes it, too."""

import ast
from pathlib import Path

import pytest
from journal_kit import found, frozen_image, image_of, offer, reach
from sqlalchemy import event
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from pix4d_watcher import journal as package
from pix4d_watcher.core.model import HoldCode, State
from pix4d_watcher.journal import (
    folders,
    listing,
    naming,
    orphans,
    people,
    projects,
    results,
    service,
    tables,
    uploads,
    views,
)

FILES = sorted(Path(package.__file__).parent.glob("*.py"))
DIALECT = postgresql.dialect()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_sqlite_is_named_in_one_module(file):
    """Only `database` writes SQL by hand, `trouble` knows SQLite's errors, `tables` has the conditions of indexes."""
    imported = {
        alias.name
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    allowed = {"database.py": {"sqlite3", "text"}, "trouble.py": {"sqlite3"}, "tables.py": {"text"}}.get(
        file.name, set()
    )
    assert imported & {"sqlite3", "text"} <= allowed


def test_tables_are_made_on_postgresql():
    """Every table and index can be said to PostgreSQL, with the conditions of the partial ones."""
    said = ""
    for table in tables.metadata.sorted_tables:
        said += str(CreateTable(table).compile(dialect=DIALECT))
        said += "".join(str(CreateIndex(index).compile(dialect=DIALECT)) + "\n" for index in table.indexes)
    assert "CREATE UNIQUE INDEX one_open_effect ON effects (project_id) WHERE status = 'open'" in said
    assert "CREATE UNIQUE INDEX one_success ON effects (project_id, kind, part) WHERE status = 'done'" in said
    assert "folder BYTEA NOT NULL" in said
    assert "id BIGSERIAL NOT NULL" in said


def test_statements_are_said_to_postgresql(journal):
    """What verbs and views ask of the database, PostgreSQL understands as well."""
    asked = []

    def listen(_connection, statement, _many, _parameters, _options):
        asked.append(statement)

    engines = (journal._writer, journal._reader)
    for engine in engines:
        event.listen(engine, "before_execute", listen)
    try:
        _everything(journal)
    finally:
        for engine in engines:
            event.remove(engine, "before_execute", listen)
    assert len(asked) > 100
    for statement in asked:
        assert str(statement.compile(dialect=DIALECT))


def _everything(journal):
    number = reach(journal, State.DELIVERED)
    folders.folders_gone(journal, [number])
    number = found(journal)
    folders.still_settling(journal, number, images=1, why="growing")
    number = reach(journal, State.REGISTERED, b"other")
    late = [frozen_image("LATE.JPG")]
    folders.late_images(journal, number, late, keys={b"LATE.JPG": "LATE.JPG"}, skipped={}, fingerprint=b"f")
    uploads.multipart_begun(journal, image_of(journal, number, 3), "id")
    uploads.part_done(journal, image_of(journal, number, 3), "id", 1, etag="e", size=8)
    uploads.parts_of(journal, image_of(journal, number, 3), "id")
    projects.hold(journal, number, HoldCode.SOURCE_CHANGED, "because")
    people.retry(journal, number)
    projects.cloud_said(journal, number, "NEW", "new")
    offer(journal, number)
    results.fetched(journal, views.outputs_of(journal, number)[0])
    service.put(journal, service.VITALS, {"skew": 0})
    views.status(journal, [number])
    views.due(journal, 1.0, 2.0)
    views.to_upload(journal, 1.0, 2.0, but=[], most=2)
    views.busy(journal)
    naming.find(journal, "other")
    listing.headline(journal)
    uploads.next_due(journal, 1.0)
    people.drop(journal, number)
    orphans.to_abort(journal, 1.0, 2.0, but=[])
    views.last_event(journal, ("found",))
    views.known_remote_ids(journal)
