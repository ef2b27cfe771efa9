"""One service per journal: an flock on a file beside it, which the kernel gives back when the process ends.

Owns the lock file and never removes it: a removed file could be locked twice under one name.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import Cure, DiskFull, HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCKS = Path("/proc/locks")
"""The kernel's table of all locks of files."""

LOOKS = 5
"""Times to read it before nobody holds a lock: it comes in pieces of a page, and where locks come and go between two of
them, others are left out. On a busy machine one look in 160 was measured to miss a lock that was held all the time."""


class AlreadyRunning(HostError):
    """Another process holds the lock; come back when it has ended."""

    cure = Cure.WAIT


def lock_path(journal: Path) -> Path:
    """Return the file whose lock says that a service works on this journal."""
    return journal.with_name(journal.name + ".lock")


def holder(path: Path) -> int | None:
    """Name the process that holds the lock file, without touching it: a try could keep a service from starting.

    None where nobody does. Raises OSError where the kernel's table cannot be read, as in some containers.
    """
    try:
        facts = path.stat()
        written = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    for _look in range(LOOKS):
        found = _in_table(facts, written)
        if found is not None:
            return found
    return None


def _in_table(facts: os.stat_result, written: str) -> int | None:
    place = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    for line in LOCKS.read_text(encoding="ascii").splitlines():
        # 1: FLOCK  ADVISORY  WRITE 4242 fd:01:131074 0 EOF
        fields = line.split()
        # btrfs and overlay number devices anew, and a container numbers processes anew: one of both is enough.
        same_file = fields[5] == place or (fields[4] == written and fields[5].endswith(f":{facts.st_ino}"))
        if fields[1] == "FLOCK" and same_file:
            return int(written) if written.isdecimal() else int(fields[4])
    return None


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs.

    The directory of `path` is made (0700) where only it is missing. Raises `AlreadyRunning` while another process holds
    the lock, `DiskFull` where there is no room for the file, and `HostError` where it cannot be made or locked.
    """
    descriptor = _open(path)
    try:
        _take(descriptor, path)
        # The number helps only people; a full disk must not keep the service from starting.
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        with suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
        return _open_or_make(path)
    except PermissionError as error:
        raise HostError(
            f"no permission to open the lock file {path}: the service must be able to write in {path.parent}. "
            f"Run it as the user that owns this directory, or change its owner with chown."
        ) from error
    except FileNotFoundError as error:
        raise HostError(
            f"the directory for the lock file {path} cannot be made, because {path.parent.parent} does not exist. "
            f"Make it, or correct `journal` in the configuration."
        ) from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskFull(f"no room for the lock file {path}: make room on that disk") from error
        raise HostError(
            f"cannot open the lock file {path}: {error.strerror}. Check `journal` in the configuration."
        ) from error


def _open_or_make(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
    # It can be locked all the same; what a read-only disk means is the journal's to say.
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        number = os.pread(descriptor, 32, 0).decode("ascii", errors="replace").strip()
        who = f"process {number}" if number.isdecimal() else "another process"
        raise AlreadyRunning(
            f"{who} already works with this journal (it holds {path}). Only one service may use a journal: "
            f"stop the other one, or give this one its own `journal`."
        ) from error
    except OSError as error:
        why = "has no file locks" if error.errno in {errno.ENOLCK, errno.EOPNOTSUPP} else f"said: {error.strerror}"
        raise HostError(
            f"cannot lock {path}: its filesystem {why}. "
            f"Put the journal on a local disk (`journal` in the configuration)."
        ) from error
