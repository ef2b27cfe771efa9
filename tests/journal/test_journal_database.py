"""Opening, refusing, checking and copying the journal, on real SQLite files."""

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from journal_kit import dump, found, images, reach
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from pix4d_watcher.core.errors import Cure, JournalError, JournalTooNew, Scope
from pix4d_watcher.core.model import State
from pix4d_watcher.journal import database, folders, projects, service, tables, views
from pix4d_watcher.journal.change import Stale


@pytest.fixture
def opened(journal_file):
    """Give an open journal with all its safeguards, and its file."""
    journal = database.open_journal(journal_file)
    yield journal
    journal.close()


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def set_version(path, version):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [version])


def test_ids_are_never_used_again(opened):
    """The id of a row that is gone is not given to another one: what memory knows by number stays true."""
    number = reach(opened, State.SETTLED)
    before = [image.id for image in views.images_of(opened, number)]
    folders.frozen(opened, number, images(3), fingerprint=b"changed")
    assert min(image.id for image in views.images_of(opened, number)) > max(before)


def test_new_journal_is_private(tmp_path):
    """A new journal, its directory, its -wal and -shm can be read by their owner only, whatever the umask."""
    before = os.umask(0)
    try:
        path = tmp_path / "state" / "journal.db"
        journal = database.open_journal(path)
        found(journal)
        assert {file.name: mode_of(file) for file in path.parent.iterdir()} == {
            "journal.db": 0o600,
            "journal.db-wal": 0o600,
            "journal.db-shm": 0o600,
        }
        assert mode_of(path.parent) == 0o700
        journal.close()
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", ["my flights.db", "100%.db", "what?.db", "no#1.db", "vidéo.db", "a&mode=memory.db"])
def test_any_name_will_do(tmp_path, name):
    """A journal lies where it was asked for, whatever signs its name has."""
    journal = database.open_journal(tmp_path / name)
    found(journal)
    journal.close()
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_safeguards_are_on(opened):
    """Writers and readers work in WAL mode, flush every commit, and hold foreign keys; readers cannot write."""
    pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "query_only")

    def seen(connection):
        return [connection.execute(text(f"PRAGMA {name}")).scalar() for name in pragmas]

    with opened.write() as connection:
        assert seen(connection) == ["wal", 2, 1, database.BUSY_MS, 0]
    with opened.read() as connection:
        assert seen(connection) == ["wal", 2, 1, database.BUSY_MS, 1]
    with pytest.raises(JournalError, match="readonly"), opened.read() as connection:
        connection.execute(insert(tables.service).values(name="x", value=1, at=0.0))


def test_rows_without_a_parent_are_refused(opened):
    """An event of a project that does not exist is a defect and passes as IntegrityError."""
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), opened.write() as connection:
        connection.execute(insert(tables.events).values(at=0.0, project_id=4711, kind="x", text="x"))
    assert dump(opened)["events"] == []


def test_newer_journal_is_refused_untouched(opened, journal_file):
    """A journal of a newer version is refused with what to do, and not one byte of it changes."""
    found(opened)
    opened.close()
    set_version(journal_file, "9999")
    before = journal_file.read_bytes()
    for opening in (database.open_journal, database.open_to_read):
        with pytest.raises(JournalTooNew, match=r"schema 9999, this one knows .* Install the newer version"):
            opening(journal_file)
    assert journal_file.read_bytes() == before
    assert list(journal_file.parent.iterdir()) == [journal_file]


def test_older_journal_is_not_read_but_explained(journal_file):
    """Looking at a journal of an older version changes nothing and says who brings it up to date."""
    set_version(journal_file, "0000")
    with pytest.raises(JournalError, match="start the service once"):
        database.open_to_read(journal_file)


def test_looking_makes_nothing(tmp_path):
    """Looking where no journal is gives None and leaves no file; an empty file is no journal yet either."""
    assert database.open_to_read(tmp_path / "journal.db") is None
    assert database.open_to_read(tmp_path / "no" / "journal.db") is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.db").touch()
    assert database.open_to_read(tmp_path / "empty.db") is None


def test_reader_sees_what_was_written(opened, journal_file):
    """A second program that only looks sees every commit, while the service works."""
    number = found(opened)
    reader = database.open_to_read(journal_file)
    assert views.project(reader, number).folder == b"flight"
    projects.waiting(opened, number, "the copy", due_at=1.0)
    assert views.project(reader, number).waiting_for == "the copy"
    reader.close()


@pytest.mark.parametrize("opening", [database.open_journal, database.open_to_read])
def test_other_files_are_refused(tmp_path, opening):
    """A text file, a directory and another program's database are refused by name and keep their content."""
    notes = tmp_path / "notes.txt"
    notes.write_text("flight plan\n" * 500)
    with pytest.raises(JournalError, match=r"notes\.txt: this is no journal"):
        opening(notes)
    assert notes.read_text() == "flight plan\n" * 500
    with pytest.raises(JournalError, match=str(tmp_path)):
        opening(tmp_path)
    songs = tmp_path / "songs.db"
    with closing(sqlite3.connect(songs)) as connection, connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(JournalError, match=r"another program \(tables: songs\)"):
        opening(songs)
    with closing(sqlite3.connect(songs)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("songs",)]


def test_places_that_cannot_be_used(tmp_path):
    """Where the journal cannot be made, the error names the file, the cause and what to do."""
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "journal.db", tmp_path / "file" / "below" / "journal.db"):
        with pytest.raises(
            JournalError, match=r"journal\.db: .* should be a directory above it is a file; set `journal:`"
        ):
            database.open_journal(place)
    with pytest.raises(JournalError, match="must be able to write there"):
        database.open_journal(Path("/proc/self/journal.db"))  # refused to everybody, root too
    with pytest.raises(JournalError, match="File name too long"):
        database.open_to_read(tmp_path / ("x" * 300))
    assert database.open_to_read(tmp_path / "file" / "journal.db") is None


def test_full_disk_is_explained(opened):
    """No room for the journal becomes a sentence, nothing half written stays, and it goes on when there is room."""
    number = found(opened)
    with opened.write() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar()
        connection.execute(text(f"PRAGMA max_page_count={pages}"))
    before = dump(opened)
    with pytest.raises(JournalError, match="no room for the journal"):
        folders.frozen(opened, number, images(500), fingerprint=b"f")
    assert dump(opened) == before
    with opened.write() as connection:
        connection.execute(text("PRAGMA max_page_count=1000000"))
    folders.frozen(opened, number, images(500), fingerprint=b"f")


def test_idle_service_needs_no_alembic(journal_file):
    """Opening a journal that is up to date imports no Alembic, which would cost memory for nothing."""
    script = (
        "import sys; from pathlib import Path; from pix4d_watcher.journal.database import open_journal;"
        "open_journal(Path(sys.argv[1])).close(); print('alembic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, journal_file], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"


def test_check_finds_a_damaged_page(opened, journal_file):
    """A sound journal passes the check; one with a page of garbage is found, with the way to the backup."""
    reach(opened, State.SETTLED)
    database.check(opened)
    with opened.read() as connection:
        page = connection.execute(text("SELECT rootpage FROM sqlite_master WHERE name = 'images'")).scalar()
    opened.close()
    with journal_file.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)
    damaged = database.open_journal(journal_file)
    with pytest.raises(JournalError, match=r"damaged .*journal\.db-wal.*journal\.db\.backup"):
        database.check(damaged)
    damaged.close()


def test_backup_while_a_writer_is_busy(opened, tmp_path):
    """A backup of a journal in use ends, is private, whole and sound, and holds all that was committed before it."""
    number = found(opened)
    folders.frozen(opened, number, images(6000), fingerprint=b"f")
    stop, wrote = threading.Event(), threading.Event()

    def write():
        while not stop.is_set():
            found(opened, b"meanwhile")
            wrote.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert wrote.wait(30)
        target = tmp_path / "copy.db"
        target.write_text("an older copy")
        database.backup(opened, target)
    finally:
        stop.set()
        writer.join()
    assert mode_of(target) == 0o600
    assert not list(tmp_path.glob("*.part*"))
    copy = database.open_to_read(target)
    database.check(copy)
    assert len(views.paths_of(copy, number)) == 6000
    copy.close()


def test_backup_refuses_what_would_spoil(opened, journal_file, tmp_path):
    """A backup never replaces the journal itself, and one that fails leaves no half copy and the old one in place."""
    found(opened)
    (tmp_path / "link.db").symlink_to(journal_file)
    for target in (journal_file, tmp_path / "link.db"):
        with pytest.raises(JournalError, match="the journal itself"):
            database.backup(opened, target)
    (tmp_path / "copies").mkdir()
    for target in (tmp_path / "copies", tmp_path / "no" / "copy.db"):
        with pytest.raises(JournalError, match="the backup of the journal failed"):
            database.backup(opened, target)
    assert not list(tmp_path.glob("**/*.part*"))
    assert len(views.folders_of(opened, "survey")) == 1


def test_threads_lose_nothing(opened):
    """Threads that read and write the same row through one journal wait for each other."""
    number = found(opened)

    def try_often():
        for _ in range(10):
            projects.trouble(opened, number, "no route", due_at=0.0)

    threads = [threading.Thread(target=try_often) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert views.project(opened, number).tries == 60


def test_two_processes_lose_nothing(tmp_path):
    """Two programs that open a journal for the first time and write at once wait for each other."""
    path = tmp_path / "journal.db"
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from journal_kit import found;"
        "from pix4d_watcher.journal.database import open_journal; print('ready', flush=True); sys.stdin.readline();"
        "journal = open_journal(Path(sys.argv[1])); [found(journal, b'DCIM') for _ in range(30)]; journal.close()"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, path, Path(__file__).parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for writer in writers:
        assert writer.stdout.readline() == b"ready\n"
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0]
    journal = database.open_to_read(path)
    rounds = [row["round"] for row in views.status(journal)]
    journal.close()
    assert sorted(rounds) == list(range(1, 61))


def test_service_facts_are_kept(opened):
    """A fact of the service is kept as it was given, replaced, and may be forgotten."""
    assert service.get(opened, service.VITALS, {"none": "yet"}) == {"none": "yet"}
    service.put(opened, service.VITALS, {"skew": -1.5})
    service.put(opened, service.VITALS, {"skew": 2})
    assert service.get(opened, service.VITALS) == {"skew": 2}
    service.put(opened, service.VITALS, None)
    assert service.get(opened, service.VITALS, "none") == "none"


def test_stale_stops_only_its_project():
    """What went stale concerns one project and is looked at again; it is no failure of the journal."""
    assert (Stale.scope, Stale.cure) == (Scope.PROJECT, Cure.RETRY)
    assert JournalError.scope is Scope.SERVICE
