"""`backup FILE` and `restore FILE`: what is kept, what is refused, and what a restored journal knows of itself."""

import os
import shutil
import sqlite3
import stat
from contextlib import closing

import pytest

from pix4d_watcher.host import lock
from pix4d_watcher.journal import database, restored, restoring, service, views


def said(result, code, *texts):
    """Check how a command ended and what it said."""
    assert result.returncode == code, result.stdout + result.stderr
    spoken = " ".join((result.stdout + result.stderr).split())
    for text in texts:
        assert text in spoken, spoken
    return result


def folders(path):
    """List the folders that a journal knows."""
    with closing(database.open_to_read(path)) as journal:
        return [project["folder"] for project in views.status(journal)]


def test_backup_while_the_service_runs(cli, site):
    """A backup is whole, private, and made beside a running service; its size and projects are said."""
    site.delivered("harbour")
    site.found("flight")
    file = site.directory / "kept.db"
    with lock.hold(lock.lock_path(site.journal_path)):
        said(cli("backup", file), 0, "kept.db:", "2 projects")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert folders(file) == ["harbour", "flight"]
    site.found("third")
    said(cli("backup", file), 0, "3 projects")
    assert folders(file) == ["harbour", "flight", "third"]


def test_what_is_no_place_for_a_backup(cli, site):
    """The journal itself by any name, its parts, other files and directories are refused and left as they are."""
    site.found("harbour")
    said(cli("backup", site.directory / "x.db", "--config", site.config), 0)
    photo = site.directory / "photo.jpg"
    photo.write_bytes(b"\xff\xd8 precious")
    link = site.directory / "link.db"
    link.symlink_to(site.journal_path)
    hard = site.directory / "hard.db"
    os.link(site.journal_path, hard)
    for file in (site.journal_path, link, hard, site.journal_path.with_name("journal.db-wal"), photo, site.directory):
        said(cli("backup", file), 2)
    said(cli("backup", site.directory / "nowhere" / "x.db"), 2, "there is no directory")
    assert photo.read_bytes() == b"\xff\xd8 precious"
    assert folders(site.journal_path) == ["harbour"]


def test_backup_of_nothing(cli):
    """Before the first run there is nothing to keep."""
    said(cli("backup", "kept.db"), 2, "there is no journal yet")


def test_restore(cli, site):
    """The backup takes the journal's place, the replaced one is kept whole, and the next start knows of it."""
    site.created("harbour", uploaded=3)
    file = site.directory / "kept.db"
    said(cli("backup", file), 0)
    site.found("later")
    before = file.read_bytes()
    result = said(cli("restore", file), 0, "restored, 1 project", "before anything is sent")
    assert file.read_bytes() == before
    (kept,) = site.journal_path.parent.glob("journal.db.before-restore-*")
    assert str(kept) in result.stdout
    assert folders(kept) == ["harbour", "later"]
    assert folders(site.journal_path) == ["harbour"]
    assert stat.S_IMODE(site.journal_path.stat().st_mode) == 0o600
    found = restored.facts(site.journal)
    assert (found.last_project, found.compared) == (1, False)
    assert all(image.begun for image in views.images_of(site.journal, 1))
    assert "nothing is sent until it is compared" in cli("status").stdout
    names = sorted(path.name for path in site.journal_path.parent.iterdir() if "before-restore" not in path.name)
    assert [name for name in names if "-wal" not in name and "-shm" not in name] == ["journal.db", "journal.db.lock"]


def test_restore_where_no_journal_is(cli, site):
    """A lost journal is replaced, together with the directory it lay in."""
    site.found("harbour")
    file = site.directory / "kept.db"
    said(cli("backup", file), 0)
    shutil.rmtree(site.journal_path.parent)
    result = said(cli("restore", file), 0)
    assert "is kept as" not in result.stdout
    assert folders(site.journal_path) == ["harbour"]


def test_not_while_the_service_runs(cli, site):
    """A running service keeps its journal."""
    site.found("harbour")
    file = site.directory / "kept.db"
    said(cli("backup", file), 0)
    site.found("later")
    site.close()
    with lock.hold(lock.lock_path(site.journal_path)):
        said(cli("restore", file), 75, "already works with this journal")
    assert folders(site.journal_path) == ["harbour", "later"]


@pytest.mark.parametrize("what", ["nothing", "empty", "photo", "cut off", "other database", "newer", "no projects"])
def test_what_cannot_be_restored(cli, site, what):
    """What is no whole backup of this program is refused, and the journal stays as it is."""
    site.found("harbour")
    file = site.directory / "kept.db"
    said(cli("backup", file), 0)
    code = 1
    if what == "nothing":
        file.unlink()
        code = 2
    elif what in {"empty", "photo"}:
        file.write_bytes(b"" if what == "empty" else b"\xff\xd8 a photo")
        code = 2
    elif what == "cut off":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        if what != "newer":
            file.unlink()
        with closing(sqlite3.connect(file)) as other, other:
            if what == "newer":
                other.execute("UPDATE alembic_version SET version_num = '9999'")
                code = 78
            elif what == "other database":
                other.execute("CREATE TABLE recipes (name TEXT)")
            else:
                other.execute("PRAGMA user_version = 1")
    result = said(cli("restore", file), code, "kept.db")
    assert "restoring" not in result.stderr
    assert folders(site.journal_path) == ["harbour"]
    assert restored.facts(site.journal) is None
    assert not list(site.journal_path.parent.glob("*restor*"))


def test_the_backup_of_another_service(cli, site):
    """A backup that knows none of the configured drop directories is refused, and taken with --force."""
    site.found("harbour")
    file = site.directory / "kept.db"
    said(cli("backup", file), 0)
    site.config.write_text(site.config.read_text().replace("name: survey", "name: other"))
    said(cli("restore", file), 2, "it knows the drop directories survey", "--force")
    said(cli("restore", file, "--force"), 0)


def test_a_damaged_journal_is_kept_file_by_file(site):
    """A journal that cannot be read any more is replaced all the same, and kept as it stands with its -wal."""
    site.found("harbour")
    file = site.directory / "kept.db"
    database.backup(site.journal, file)
    site.close()
    site.journal_path.write_bytes(b"no database at all")
    wal = site.journal_path.with_name("journal.db-wal")
    wal.write_bytes(b"an old one")
    kept = restoring.restore(site.journal_path, file, lambda journal: service.put(journal, "seen", value=True))
    assert kept.read_bytes() == b"no database at all"
    assert kept.with_name(kept.name + "-wal").read_bytes() == b"an old one"
    assert not wal.exists()
    assert folders(site.journal_path) == ["harbour"]
