"""What is done to the files of a delivered folder: unlinked one by one, moved, or copied, verified and then unlinked.

Owns every removal of what people dropped, and there is no other. Nothing is removed but by name in an open directory,
after a look at that very file; links are never followed; directories go only when they are empty. No error path
removes anything. Knows nothing of projects, the journal or the cloud.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import DiskFull, HostError, SourceChanged
from pix4d_watcher.core.model import FileId, printable
from pix4d_watcher.host import durable
from pix4d_watcher.intake.files import file_id, open_directory, open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

PIECE = 1 << 20
"""Bytes copied at a time."""

_FINAL = frozenset({errno.EROFS, errno.EPERM, errno.EACCES})
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class NotAllowed(HostError):
    """The system forbids it (a read-only medium, no permission): to try again helps only after a person acted."""


@dataclass(frozen=True, slots=True)
class Copied:
    """One file as it was when it was copied, or found equal to its copy."""

    file_id: FileId
    sha256: bytes


@dataclass
class Outcome:
    """What became of the files: how many were removed or gone already, and which stay because they are other files."""

    removed: int = 0
    missing: int = 0
    changed: list[bytes] = field(default_factory=list)


def remove(root: bytes, paths: Iterable[bytes], is_same: Callable[[bytes, os.stat_result], bool]) -> Outcome:
    """Unlink the regular files `paths` (relative to `root`) that `is_same` recognises by path and stat.

    Raises NotAllowed or HostError at the first failure; what was unlinked until then stays so.
    """
    outcome = Outcome()
    by_directory: dict[bytes, list[bytes]] = {}
    for path in paths:
        by_directory.setdefault(path.rpartition(b"/")[0], []).append(path)
    for directory, inside in sorted(by_directory.items()):
        with errors(root + b"/" + directory):
            here = _open_or_none(root, directory)
            if here is None:
                outcome.missing += len(inside)
                continue
            try:
                for path in inside:
                    _remove_one(here, path, is_same, outcome)
                # What the journal says of them must not outlive a power cut alone.
                os.fsync(here)
            finally:
                os.close(here)
    return outcome


def remove_empty(root: bytes, directories: Iterable[bytes]) -> None:
    """Remove those of the directories (relative to `root`) that are empty, the deepest first; raises like `remove`."""
    for directory in sorted(set(directories), key=lambda path: (-path.count(b"/"), path)):
        parent, _, name = directory.rpartition(b"/")
        with errors(root + b"/" + directory):
            here = _open_or_none(root, parent)
            if here is None:
                continue
            try:
                os.rmdir(name, dir_fd=here)
                os.fsync(here)
            except OSError as error:
                if error.errno not in _GONE | {errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY}:
                    raise
            finally:
                os.close(here)


def parents(paths: Iterable[bytes]) -> set[bytes]:
    """List all directories above these relative paths."""
    found: set[bytes] = set()
    for path in paths:
        while b"/" in path:
            path = path.rpartition(b"/")[0]  # noqa: PLW2901  (one step up)
            found.add(path)
    return found


def move(source: bytes, target: bytes) -> bool:
    """Rename a folder durably; False where `target` is on another filesystem. Raises HostError also where it exists."""
    with errors(target):
        if os.path.lexists(target):
            raise HostError(f"{printable(target)}: something has this name already; nothing was moved")
        try:
            os.rename(source, target)  # noqa: PTH104  (names are bytes)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return False
            raise
        durable.flush(os.path.dirname(target))  # noqa: PTH120
        durable.flush(os.path.dirname(source))  # noqa: PTH120
    return True


def copy(
    source: bytes, target: bytes, part: bytes, expected: Mapping[bytes, Copied], alive: Callable[[], None]
) -> dict[bytes, Copied]:
    """Copy a folder to `part` on another filesystem, verify it, and give it its name `target`; returns what was copied.

    `expected` holds what is known of images: one that has the known version but another content raises SourceChanged.
    `alive` is called between pieces and may raise. Links are copied as links. Raises DiskFull, NotAllowed, HostError.
    """
    with errors(target):
        # Of an earlier try, our own by its name, and never what was dropped.
        shutil.rmtree(part, ignore_errors=True)
        with ExitStack() as unless_complete:
            unless_complete.callback(shutil.rmtree, part, ignore_errors=True)
            copied = _copy_tree(source, part, expected, alive)
            os.rename(part, target)  # noqa: PTH104
            unless_complete.pop_all()
        durable.flush(os.path.dirname(target))  # noqa: PTH120
    return copied


def compare(source: bytes, target: bytes, alive: Callable[[], None]) -> dict[bytes, Copied]:
    """List the files of `source` whose copy below `target` has the same content, both read now."""
    same: dict[bytes, Copied] = {}
    for path, facts in _walk(source):
        if not stat.S_ISREG(facts.st_mode):
            continue
        with suppress(OSError, SourceChanged):
            here, there = _digest(source, path, alive), _digest(target, path, alive)
            if here.sha256 == there.sha256:
                same[path] = here
    return same


def remove_copied(root: bytes, top: bytes, target: bytes, copied: Mapping[bytes, Copied]) -> Outcome:
    """Remove of the folder `top` what lies in the archive as `target` and did not change; raises like `remove`."""

    def is_same(path: bytes, facts: os.stat_result) -> bool:
        return file_id(facts) == copied[path[len(top) + 1 :]].file_id

    outcome = remove(root, [top + b"/" + path for path in copied], is_same)
    archived = list(_walk(target))
    for path in (path for path, facts in archived if stat.S_ISLNK(facts.st_mode)):
        _remove_link(root + b"/" + top, target, path)
    remove_empty(root, {top, *(top + b"/" + path for path, facts in archived if stat.S_ISDIR(facts.st_mode))})
    return outcome


def size_of(source: bytes) -> int:
    """Add up the bytes of the regular files of a folder."""
    return sum(facts.st_size for _path, facts in _walk(source) if stat.S_ISREG(facts.st_mode))


def _remove_one(here: int, path: bytes, is_same: Callable[[bytes, os.stat_result], bool], outcome: Outcome) -> None:
    name = path.rpartition(b"/")[2]
    try:
        # By name in an open directory: no directory above can be exchanged between the look and the removal.
        facts = os.stat(name, dir_fd=here, follow_symlinks=False)
        if not stat.S_ISREG(facts.st_mode) or facts.st_dev != os.fstat(here).st_dev or not is_same(path, facts):
            outcome.changed.append(path)
            return
        os.unlink(name, dir_fd=here)
    except FileNotFoundError:
        outcome.missing += 1
    else:
        outcome.removed += 1


def _remove_link(source: bytes, target: bytes, path: bytes) -> None:
    """Unlink a link whose copy in the archive leads to the same place."""
    directory, _, name = path.rpartition(b"/")
    with errors(source + b"/" + path):
        here = _open_or_none(source, directory)
        if here is None:
            return
        try:
            if os.readlink(name, dir_fd=here) == _link(target, path):
                os.unlink(name, dir_fd=here)
        except OSError as error:
            if error.errno not in _GONE | {errno.EINVAL}:  # EINVAL: something else stands there now
                raise
        finally:
            os.close(here)


def _copy_tree(
    source: bytes, part: bytes, expected: Mapping[bytes, Copied], alive: Callable[[], None]
) -> dict[bytes, Copied]:
    copied: dict[bytes, Copied] = {}
    os.mkdir(part, 0o700)  # noqa: PTH102
    directories = {part: os.lstat(source).st_mode}
    for path, facts in _walk(source):
        there = part + b"/" + path
        if stat.S_ISDIR(facts.st_mode):
            os.mkdir(there, 0o700)  # noqa: PTH102
            directories[there] = facts.st_mode
        elif stat.S_ISLNK(facts.st_mode):
            os.symlink(_link(source, path), there)  # noqa: PTH211
        elif stat.S_ISREG(facts.st_mode):
            copied[path] = _copy_file(source, path, there, alive)
            _verify(source, part, path, copied[path], known=expected.get(path), alive=alive)
        else:
            raise NotAllowed(f"{printable(source + b'/' + path)}: it is neither file, directory nor link")
    for directory, mode in reversed(directories.items()):
        durable.flush(directory)
        os.chmod(directory, mode & 0o777)  # noqa: PTH101
    return copied


def _copy_file(source: bytes, path: bytes, there: bytes, alive: Callable[[], None]) -> Copied:
    digest = hashlib.sha256()
    handle = open_file(source, path)
    try:
        before = os.fstat(handle)
        written = os.open(there, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(written, "wb", buffering=0) as out:  # noqa: PTH123  (a descriptor)
            while piece := os.read(handle, PIECE):
                alive()
                digest.update(piece)
                _write(out.fileno(), piece)
            os.fchmod(out.fileno(), before.st_mode & 0o777)
            os.utime(out.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
            os.fsync(out.fileno())
            # What is verified shall come from the disk.
            os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if file_id(os.fstat(handle)) != file_id(before):
            raise SourceChanged(f"{printable(source + b'/' + path)}: it changed while it was copied")
    finally:
        os.close(handle)
    return Copied(file_id(before), digest.digest())


def _verify(
    source: bytes, part: bytes, path: bytes, copied: Copied, *, known: Copied | None, alive: Callable[[], None]
) -> None:
    shown = printable(source + b"/" + path)
    if _digest(part, path, alive).sha256 != copied.sha256:
        raise HostError(f"{shown}: its copy in the archive reads differently; check that disk")
    now = copied.file_id
    if (
        known
        and (known.file_id.size, known.file_id.mtime_ns) == (now.size, now.mtime_ns)
        and (known.sha256 != copied.sha256)
    ):
        raise SourceChanged(f"{shown}: it reads differently than when it was sent; check its disk")


def _digest(folder: bytes, path: bytes, alive: Callable[[], None]) -> Copied:
    digest = hashlib.sha256()
    handle = open_file(folder, path)
    try:
        before = file_id(os.fstat(handle))
        while piece := os.read(handle, PIECE):
            alive()
            digest.update(piece)
        if file_id(os.fstat(handle)) != before:
            raise SourceChanged(f"{printable(folder + b'/' + path)}: it changed while it was read")
    finally:
        os.close(handle)
    return Copied(before, digest.digest())


def _walk(folder: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Give all that lies below a folder, each directory before what is in it; links are given and not followed.

    Raises NotAllowed or HostError.
    """
    pending = [b""]
    while pending:
        directory = pending.pop()
        with errors(folder + b"/" + directory):
            here = open_directory(folder, directory)
            try:
                with os.scandir(here) as entries:
                    found = sorted((os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in entries)
            finally:
                os.close(here)
        for name, facts in found:
            path = directory + b"/" + name if directory else name
            yield path, facts
            if stat.S_ISDIR(facts.st_mode):
                pending.append(path)


def _link(folder: bytes, path: bytes) -> bytes:
    here = open_directory(folder, path.rpartition(b"/")[0])
    try:
        return os.readlink(path.rpartition(b"/")[2], dir_fd=here)
    finally:
        os.close(here)


def _write(handle: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(handle, view) :]


def _open_or_none(root: bytes, directory: bytes) -> int | None:
    try:
        return open_directory(root, directory)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


@contextmanager
def errors(what: bytes) -> Iterator[None]:
    """Translate what the system says: raises DiskFull, NotAllowed, HostError."""
    try:
        yield
    except OSError as error:
        shown = printable(what)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{shown}: no room on that disk") from error
        if error.errno in _FINAL:
            raise NotAllowed(
                f"{shown}: {error.strerror}. The service's user must be able to change both directories"
            ) from error
        raise HostError(f"{shown}: {error.strerror}") from error
