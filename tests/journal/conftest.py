"""Journals for the tests: one that is open for all of them and empty for each, and files to open oneself."""

import shutil

import pytest
from sqlalchemy import delete, event, text

from pix4d_watcher.journal import tables
from pix4d_watcher.journal.database import open_journal


@pytest.fixture(scope="session")
def fresh_journal(tmp_path_factory):
    """Give the file of an empty journal that is up to date."""
    path = tmp_path_factory.mktemp("fresh") / "journal.db"
    open_journal(path).close()
    return path


@pytest.fixture
def journal_file(fresh_journal, tmp_path):
    """Give an empty journal file of one's own, closed."""
    return shutil.copy(fresh_journal, tmp_path / "journal.db")


@pytest.fixture(scope="session")
def open_one(fresh_journal, tmp_path_factory):
    """Give an open journal that does not wait for the disk: what survives a crash has tests of its own."""
    opened = open_journal(shutil.copy(fresh_journal, tmp_path_factory.mktemp("open") / "journal.db"))
    event.listen(opened._writer, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    yield opened
    opened.close()


@pytest.fixture
def journal(open_one):
    """Give an empty open journal; the statements that were compiled for other tests make it quick."""
    with open_one.write() as connection:
        connection.execute(text("DROP TRIGGER IF EXISTS mute"))
        for table in reversed(tables.metadata.sorted_tables):
            connection.execute(delete(table))
    return open_one
