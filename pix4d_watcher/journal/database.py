"""Opening the journal: pragmas, one kind of write transaction, migrations, check and backup.

The only module, with `trouble` for its errors, that knows that the journal is SQLite. Verbs and views get a connection
and speak SQLAlchemy Core.
Alembic is imported only when a migration is needed, since it costs an idle service memory for nothing.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event, inspect, text
from sqlalchemy.exc import DatabaseError, IntegrityError

from pix4d_watcher.core.errors import JournalDiskFull, JournalError, JournalTooNew
from pix4d_watcher.journal import tables, trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = "0005"
"""The newest migration; a test compares it with the files in `migrations/versions`."""

BUSY_MS = 10_000
"""How long a writer waits for another one: all writes are short, a slow disk's flush is below a second."""

TURN_SECONDS = 60
"""How long a thread waits for its turn to write: there is one connection for all writers."""

_WRITE, _READ = "BEGIN IMMEDIATE", "BEGIN"


@dataclass(frozen=True)
class Journal:
    """An open journal: `write()` and `read()` give connections in a transaction."""

    path: Path
    _writer: Engine
    _reader: Engine
    _turn: threading.Lock = field(default_factory=threading.Lock)  # of the one writer

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run one write transaction; commits at the end, rolls back on any error.

        Raises JournalError when the disk or the file fails, and then nothing of it counts; a broken rule
        (IntegrityError) is a defect and passes.
        """
        # SQLAlchemy's pool would wait by the wall clock: a jump ahead would end the wait at once.
        if not self._turn.acquire(timeout=TURN_SECONDS):
            raise JournalError(f"{self.path}: other threads of this program kept the journal busy for {TURN_SECONDS} s")
        try:
            with self._writer.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except DatabaseError as error:
            raise _explain(self.path, error) from error
        finally:
            self._turn.release()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Read in one consistent view; raises JournalError when the file fails."""
        try:
            with self._reader.begin() as connection:
                yield connection
        except DatabaseError as error:
            raise _explain(self.path, error) from error

    def close(self) -> None:
        """Give back all connections."""
        self._writer.dispose()
        self._reader.dispose()


def open_journal(path: Path, *, make: bool = True) -> Journal:
    """Open the journal for the service and for commands that change it; makes it, and brings it up to date.

    Raises JournalTooNew when a newer version of this program wrote it, JournalError when it cannot be used, and
    JournalDiskFails where it is not there and not to be made.
    """
    _make_private(path, make=make)
    journal = _connect(path)
    with ExitStack() as unless_usable:
        unless_usable.callback(journal.close)
        with journal.read() as connection:
            found = _version(path, connection)
        if not found:
            _create(journal)
        elif found != SCHEMA:
            _migrate(journal, found)
        unless_usable.pop_all()
    return journal


def open_to_read(path: Path) -> Journal | None:
    """Open an existing journal for looking only; None where there is none yet.

    Raises JournalTooNew and JournalError like `open_journal`. An older journal is brought up to date by the service
    or by a command that changes it; until then it is told so.
    """
    if not _exists(path):
        return None
    journal = _connect(path)
    found = None
    try:
        with journal.read() as connection:
            found = _version(path, connection)
    finally:
        if found != SCHEMA:
            journal.close()
    if found == SCHEMA:
        return journal
    if not found:
        return None
    _refuse_newer(path, found)
    raise JournalError(f"{path}: the journal is from an older version; start the service once, it brings it up to date")


def check(journal: Journal) -> None:
    """Run SQLite's quick_check; raises JournalError with its first finding."""
    with journal.read() as connection:
        found = connection.execute(text("PRAGMA quick_check(1)")).scalar()
    if found != "ok":
        name, words = journal.path.name, str(found).splitlines()[-1]
        raise JournalError(
            f"{journal.path}: the journal is damaged ({words}). Stop the service, move {name}, {name}-wal and "
            f"{name}-shm away and keep them (an old -wal would spoil another file), then put a backup in the place of "
            f"{name}; the service keeps one as {backup_path(journal.path).name}"
        )


def begin_wal_anew(journal: Journal) -> None:
    """Write what is only in the -wal into the database, and empty the -wal; raises JournalError.

    After a flush that failed, Linux takes the pages for written: later commits would follow in the -wal one that never
    reached the disk, and a power cut would lose them all. So after an unclean end nothing is appended to an old -wal.
    """
    try:
        with closing(_open(journal.path, _WRITE)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise trouble.of_database(journal.path, error) from error


def backup_path(path: Path) -> Path:
    """Where the online backup of a journal is kept."""
    return path.with_name(path.name + ".backup")


def backup(journal: Journal, target: Path) -> None:
    """Copy the journal while it is in use, to a temporary name first; raises JournalError.

    The copy is complete and flushed before it replaces an older one.
    """
    if target.resolve() == journal.path.resolve():
        raise JournalError(f"{target}: this is the journal itself; name another file for its backup")
    part = target.with_name(target.name + ".part")
    try:
        part.unlink(missing_ok=True)
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with closing(sqlite3.connect(journal.path)) as source, closing(sqlite3.connect(part)) as copy:
            # In one step: between steps every commit of another connection makes it start from the first page again.
            source.backup(copy)
        flush(part)
        part.rename(target)
        flush(target.parent)
    except (sqlite3.Error, OSError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        full = error.errno in trouble.NO_ROOM if isinstance(error, OSError) else _is_full(error)
        kind = JournalDiskFull if full else JournalError
        raise kind(f"{target}: the backup of the journal failed: {error}") from error


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def flush(path: Path) -> None:
    """Bring a file, or the names in a directory, to the disk; raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _connect(path: Path) -> Journal:
    return Journal(path, _engine(path, _WRITE), _engine(path, _READ))


def _engine(path: Path, begin: str) -> Engine:
    engine = create_engine("sqlite://", creator=lambda: _open(path, begin), poolclass=QueuePool, **_pool(begin))

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # The driver's own BEGIN is deferred, so that two writers could both read first and one then fails.
        connection.exec_driver_sql(begin)

    return engine


def _open(path: Path, begin: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{_quoted(path)}?mode=rw", uri=True, check_same_thread=False, isolation_level=None
    )
    try:
        connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        _to_wal(connection)
        # FULL: a commit that was acknowledged survives a power cut (NORMAL in WAL mode was measured to lose the last).
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        # KiB for each connection; there are several, and the pages are in the system's cache as well.
        connection.execute("PRAGMA cache_size=-256")
        if begin == _READ:
            connection.execute("PRAGMA query_only=ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _to_wal(connection: sqlite3.Connection) -> None:
    # The change of a new file does not wait for another connection, whatever busy_timeout says (measured).
    end = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            threading.Event().wait(0.02)
            continue
        if mode != "wal":
            raise sqlite3.OperationalError("its filesystem cannot hold a database in WAL mode; use a local disk")
        return


def _pool(begin: str) -> dict[str, Any]:
    # One writer connection at a time (SQLite has one write lock anyway); readers come and go with their threads.
    return {"pool_size": 4 if begin == _READ else 1, "max_overflow": -1}


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _make_private(path: Path, *, make: bool) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            if not make:
                raise trouble.away(path)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        elif not os.access(path, os.R_OK | os.W_OK):
            # Asked and not tried: to close the file would drop the locks that this process may hold on it, and then
            # the end of another process deletes the -wal that is still in use here.
            _refuse(errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES)
    except (FileExistsError, NotADirectoryError) as error:
        raise JournalError(
            f"{path}: the journal cannot be made: what should be a directory above it is a file; "
            f"set `journal:` to a place of its own"
        ) from error
    except OSError as error:
        raise trouble.of_system(path, error) from error


def _refuse(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise JournalError(f"{path}: the journal cannot be opened: {error.strerror}") from error
    return True


def _version(path: Path, connection: Connection) -> str:
    names = inspect(connection).get_table_names()
    if not names:
        return ""
    if "alembic_version" not in names:
        raise JournalError(
            f"{path}: this is a database of another program (tables: {', '.join(names[:5])}). "
            f"Its tables are as they were; point `journal:` to a file of its own"
        )
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def _refuse_newer(path: Path, found: str) -> None:
    if found > SCHEMA:
        raise JournalTooNew(
            f"{path}: the journal was written by a newer pix4d-watcher (schema {found}, this one knows {SCHEMA}). "
            f"Nothing was changed. Install the newer version again, or point `journal:` to a new file"
        )


def _create(journal: Journal) -> None:
    """Make a new journal from `tables` itself, as all migrations together would, without the memory they cost."""
    with journal.write() as connection:
        if _version(journal.path, connection):
            return  # another process made it in the meantime
        tables.metadata.create_all(connection)
        connection.execute(
            text(
                "CREATE TABLE alembic_version "
                "(version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
            )
        )
        connection.execute(text("INSERT INTO alembic_version VALUES (:newest)"), {"newest": SCHEMA})


def _migrate(journal: Journal, found: str) -> None:
    _refuse_newer(journal.path, found)
    backup(journal, journal.path.with_name(f"{journal.path.name}.before-{SCHEMA}"))
    from alembic import command  # noqa: PLC0415  (only when needed: see the module's text)
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    # One transaction of our own, so that a power cut leaves the old schema or the new one.
    with journal.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _explain(path: Path, error: DatabaseError) -> JournalError:
    return trouble.of_database(path, cast("sqlite3.Error", error.orig))
