"""Asks the kernel whether any local process holds a file open for writing.

Owns the lease probe and nothing else: measured, it sees what sizes and times miss (pre-allocated copies, stalls longer
than the quiet time, times set early). A lease is held for one system call, so that a writer who comes meanwhile is
delayed by microseconds. Ask only where the filesystem is local: NFS and CIFS may refuse without any writer.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from typing import TYPE_CHECKING

from pix4d_watcher.intake.files import open_file

if TYPE_CHECKING:
    from pix4d_watcher.intake.scan import Tree


def being_written(path: bytes) -> bool | None:
    """Whether a local process holds the file at `path` (absolute) open for writing; None where it cannot be told."""
    folder, _, name = path.rpartition(b"/")
    return _asked(folder or b"/", name)


def writers(folder: bytes, tree: Tree, *, local: bool) -> tuple[bytes, ...]:
    """Return the files of `tree` that are being written now; nothing where the filesystem is not `local`."""
    if not local:
        return ()
    return tuple(seen.path for seen in tree.files if _asked(folder, seen.path))


def ignore_sigio() -> None:
    """Ignore SIGIO in this process; call it once at start-up, in the main thread.

    A writer who opens a file while we hold its lease raises SIGIO in us, and its default action is death.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)


def _asked(folder: bytes, path: bytes) -> bool | None:
    try:
        descriptor = open_file(folder, path)
    except OSError:
        return None  # gone or not readable: the scan and the freezing say so
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    else:
        return False
    finally:
        os.close(descriptor)  # gives back the lease too, should the second call not have been reached
