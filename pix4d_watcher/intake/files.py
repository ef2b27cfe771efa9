"""How files of a drop directory are opened: read-only, by descriptor, never through a symlink, never by a long path.

Owns the opening and the translation of the system's errors into ours; must not read contents or decide anything.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import HostError, MediaAbsent, SourceMissing, SourceUnreadable
from pix4d_watcher.core.model import FileId, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_AWAY = frozenset({errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.EHOSTDOWN, errno.ETIMEDOUT})

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_file(folder: bytes, path: bytes) -> int:
    """Open the regular file `path` (relative to `folder`) for reading and return its descriptor.

    The access time is left alone where the system allows that. Raises OSError; ENOENT also where something else than a
    regular file has taken the place.
    """
    directory, _, name = path.rpartition(b"/")
    parent = _walk(folder, directory)
    try:
        # Looked at before it is opened: opening a FIFO would wait for a writer for ever.
        if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise FileNotFoundError(errno.ENOENT, "no regular file any more", name)
        return _open_quietly(name, parent)
    finally:
        os.close(parent)


def open_directory(folder: bytes, path: bytes) -> int:
    """Open the directory `path` (relative to `folder`, empty for itself) for listing; raises OSError."""
    parent = _walk(folder, path)
    try:
        return _open_quietly(b".", parent)
    finally:
        os.close(parent)


def identify(where: int | bytes) -> FileId:
    """Tell which version of a file an open descriptor, or a path, stands for; symlinks are not followed.

    Raises SourceMissing or SourceUnreadable.
    """
    if isinstance(where, int):
        with source_errors(b"an open image"):
            return file_id(os.fstat(where))
    with source_errors(where):
        return file_id(os.lstat(where))


def file_id(facts: os.stat_result) -> FileId:
    """Pick from a stat what tells one version of a file from another."""
    return FileId(facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)


@contextmanager
def source_errors(what: bytes) -> Iterator[None]:
    """Turn OSError about the image or folder `what` into SourceMissing, SourceUnreadable or HostError."""
    try:
        yield
    except OSError as error:
        _raise_ours(error)
        shown = printable(what)
        if error.errno in _GONE:
            raise SourceMissing(
                f"{shown}: it is gone (removed, renamed or replaced by something else). Put it back, or go on without."
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise SourceUnreadable(
                f"{shown}: this service has no permission to read it. Let its user read the drop directory "
                "(group or ACL); it is tried again by itself."
            ) from error
        raise SourceUnreadable(
            f"{shown}: cannot be read ({error.strerror}). The card or disk was pulled or is failing; nothing is lost "
            "here, and it is tried again by itself. Copy the folder anew if the medium stays broken."
        ) from error


@contextmanager
def media_errors(root: bytes) -> Iterator[None]:
    """Turn OSError about the drop directory `root` into MediaAbsent, SourceUnreadable or HostError."""
    try:
        yield
    except OSError as error:
        _raise_ours(error)
        shown = printable(root)
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise SourceUnreadable(
                f"{shown}: this service has no permission to list this drop directory. It is there; let the service's "
                "user read and enter it (group or ACL). It is tried again by itself."
            ) from error
        raise MediaAbsent(
            f"{shown}: this drop directory is away ({error.strerror}). Its folders are kept as they are, nothing is "
            "taken for deleted. Mount the disk, card or share again, or correct `path`; work goes on by itself."
        ) from error


def is_away(error: OSError) -> bool:
    """Whether an error says that the whole medium is away, not just one file on it."""
    return error.errno in _AWAY


def _raise_ours(error: OSError) -> None:
    if error.errno in _OURS:
        raise HostError(
            f"This machine cannot open more files ({error.strerror}). Raise LimitNOFILE of the service or end what "
            "uses up memory and descriptors; it is tried again by itself."
        ) from error


def _walk(folder: bytes, directory: bytes) -> int:
    """Step down from `folder` one directory at a time: no symlink is followed, and no path is too long for that."""
    here = os.open(folder, _STEP)
    for part in directory.split(b"/") if directory else ():
        try:
            below = os.open(part, _STEP, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


def _open_quietly(name: bytes, parent: int) -> int:
    try:
        return os.open(name, _READ | os.O_NOATIME, dir_fd=parent)
    except PermissionError as error:
        if error.errno != errno.EPERM:  # EPERM: O_NOATIME is for the owner only
            raise
    return os.open(name, _READ, dir_fd=parent)
