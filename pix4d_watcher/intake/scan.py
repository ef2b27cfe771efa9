"""What lies in a drop directory and in one folder of it: names and stats, nothing else.

Owns which names are ignored, temporary or images; must not open files, remember anything or wait. Symlinks are never
followed, neither to folders of the drop directory nor inside a folder, so that loops and escapes cannot happen: they
are listed, and a person copies the files instead.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pix4d_watcher.config.folderfile import FOLDER_FILE
from pix4d_watcher.host import mounts
from pix4d_watcher.intake.files import file_id, is_away, media_errors, open_directory, source_errors
from pix4d_watcher.intake.names import IMAGE_SUFFIXES, is_ignored, is_image, is_temporary, matches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pix4d_watcher.core.model import FileId

__all__ = [
    "HOLD_MARKER",
    "IMAGE_SUFFIXES",
    "FolderEntry",
    "RootListing",
    "Rules",
    "SeenFile",
    "Tree",
    "list_directories",
    "list_root",
    "scan_folder",
]

HOLD_MARKER = ".hold"
_FOLDER_FILE = os.fsencode(FOLDER_FILE)

# Deeper nesting is no card and no export of any flight planner: it is listed as unreadable, which a person sees.
MAX_DEPTH = 1000


@dataclass(frozen=True, slots=True)
class Rules:
    """Which files of a folder count: globs over the relative path (`*` crosses `/`, case does not matter).

    An empty `include` means all images. `exclude` wins, and takes other files away too. `ready_file` is the name of a
    file at the top of the folder that says that the copy is finished.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    ready_file: str | None = None


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """One folder of a drop directory and what it is known by while it is seen; `device` is what `mounts.medium` says.

    `changed_ns` (ns since 1970) is when its own entries last changed: a directory made anew at its place has another.
    """

    name: bytes
    device: int
    inode: int
    changed_ns: int = 0


@dataclass(frozen=True, slots=True)
class RootListing:
    """A drop directory as it is now; `loose` images and `links` are mentioned, never taken.

    `empty` means that nothing but ignored names lies there, as in a mount point without its medium.
    """

    device: int
    inode: int
    folders: tuple[FolderEntry, ...]
    loose: tuple[bytes, ...]
    empty: bool
    links: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class SeenFile:
    """One regular file of a folder: its path (bytes, relative to the folder) and its version."""

    path: bytes
    file_id: FileId


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder as one scan saw it; all paths are relative to it and sorted.

    `files` are all regular files that count, `images` those of them that may become inputs, `folder_files` the
    pix4d.yaml at its top (one for each folder that was joined), which is neither image nor other file even where it is
    a link, `temporary` the names of copies in progress, `unreadable` what permissions hide (with the reason), `links`
    the symlinks, `directories` the directories that were listed (the folder itself is the empty path).
    """

    files: tuple[SeenFile, ...]
    images: tuple[SeenFile, ...]
    temporary: tuple[bytes, ...] = ()
    hold_marker: bool = False
    ready: bool = False
    unreadable: tuple[tuple[bytes, str], ...] = ()
    links: tuple[bytes, ...] = ()
    directories: tuple[bytes, ...] = ()
    folder_files: tuple[bytes, ...] = ()

    def signature(self, *, with_inodes: bool) -> bytes:
        """Digest names, sizes and mtimes, and inodes where they are stable, that is, on local filesystems.

        A pix4d.yaml counts where it is a link, too: that it is taken away must be seen.
        """
        digest = hashlib.sha256()
        for seen in self.files:
            version = seen.file_id
            inode = version.inode if with_inodes else 0
            digest.update(b"%b\0%d\0%d\0%d\n" % (seen.path, version.size, version.mtime_ns, inode))
        for path in sorted({*self.folder_files} & {*self.links}):
            digest.update(b"%b\0link\n" % path)
        return digest.digest()

    @property
    def not_images(self) -> tuple[bytes, ...]:
        """The files that count but are no images, for the report."""
        known = {seen.path for seen in self.images} | {*self.folder_files}
        return tuple(seen.path for seen in self.files if seen.path not in known)


def list_root(path: bytes) -> RootListing:
    """List the folders of a drop directory; one whose own disk or share does not answer is left out.

    Raises MediaAbsent where it is away, SourceUnreadable where it may not be read.
    """
    folders: list[FolderEntry] = []
    loose: list[bytes] = []
    links: list[bytes] = []
    empty = True
    with media_errors(path):
        # The drop directory itself may be a symlink: that is the administrator's choice.
        here = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            root, medium = os.fstat(here), mounts.medium(here)
            for entry in _entries(here):
                if is_ignored(entry.name):
                    continue
                empty = False
                found = _seen_in_root(path, entry, root.st_dev, medium)
                if found is None:
                    continue
                facts, device = found
                if stat.S_ISDIR(facts.st_mode):
                    name = os.fsencode(entry.name)
                    folders.append(FolderEntry(name, device, facts.st_ino, facts.st_ctime_ns))
                elif stat.S_ISLNK(facts.st_mode):
                    links.append(os.fsencode(entry.name))
                elif stat.S_ISREG(facts.st_mode) and is_image(entry.name):
                    loose.append(os.fsencode(entry.name))
        finally:
            os.close(here)
    folders.sort(key=lambda folder: folder.name)
    return RootListing(
        medium, root.st_ino, tuple(folders), tuple(sorted(loose)), empty=empty, links=tuple(sorted(links))
    )


def scan_folder(path: bytes, rules: Rules) -> Tree:
    """See all that lies below the folder at `path` (absolute, bytes).

    Raises SourceMissing where the folder is gone, SourceUnreadable or MediaAbsent where the medium does not answer.
    """
    found = _Found(rules)
    own_name = path.rpartition(b"/")[2]
    if is_temporary(os.fsdecode(own_name)):
        found.temporary.append(own_name + b"/")
    pending = [b""]
    while pending:
        directory = pending.pop()
        try:
            here = open_directory(path, directory)
        except OSError as error:
            _note(error, found, path, directory)
            continue
        try:
            found.directories.append(directory)
            pending += _list_directory(here, directory, found)
        except OSError as error:
            _note(error, found, path, directory)
        finally:
            os.close(here)
    return found.tree()


def list_directories(path: bytes, *, most: int = 1000) -> tuple[bytes, ...]:
    """Return the directories of a folder, itself (the empty path) first, parents before children; at most `most`.

    What cannot be listed is left out: the scan says so.
    """
    found = [b""]
    for directory in found:  # grows while it is walked
        with contextlib.suppress(OSError):
            here = open_directory(path, directory)
            try:
                names = sorted(os.fsencode(entry.name) for entry in _entries(here) if _is_plain_directory(entry))
            finally:
                os.close(here)
            found += [directory + b"/" + name if directory else name for name in names][: most - len(found)]
    return tuple(found)


@dataclass(slots=True)
class _Found:
    """What the scan has gathered so far."""

    rules: Rules
    files: list[SeenFile] = field(default_factory=list)
    images: list[SeenFile] = field(default_factory=list)
    temporary: list[bytes] = field(default_factory=list)
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)
    links: list[bytes] = field(default_factory=list)
    directories: list[bytes] = field(default_factory=list)
    folder_files: list[bytes] = field(default_factory=list)
    hold_marker: bool = False
    ready: bool = False

    def tree(self) -> Tree:
        by_path = _path_of
        return Tree(
            files=tuple(sorted(self.files, key=by_path)),
            images=tuple(sorted(self.images, key=by_path)),
            temporary=tuple(sorted(self.temporary)),
            hold_marker=self.hold_marker,
            ready=self.ready,
            unreadable=tuple(sorted(self.unreadable)),
            links=tuple(sorted(self.links)),
            directories=tuple(sorted(self.directories)),
            folder_files=tuple(self.folder_files),
        )


def _path_of(seen: SeenFile) -> bytes:
    return seen.path


def _list_directory(here: int, directory: bytes, found: _Found) -> list[bytes]:
    """Sort the entries of one directory into `found`; return the paths of its sub-directories."""
    below: list[bytes] = []
    prefix = directory + b"/" if directory else b""
    for entry in _entries(here):
        if not directory and _is_marker(entry.name, found):
            continue
        path = prefix + os.fsencode(entry.name)
        if matches(os.fsdecode(path), found.rules.exclude):
            continue
        if is_temporary(entry.name):
            found.temporary.append(path)
        if path == _FOLDER_FILE:
            found.folder_files.append(path)
        if not is_ignored(entry.name):
            _sort_in(entry, path, found, below)
    return below


def _sort_in(entry: os.DirEntry[str], path: bytes, found: _Found, below: list[bytes]) -> None:
    try:
        facts = _stat(entry)
    except PermissionError:
        found.unreadable.append((path, "permission denied"))
        return
    if facts is None:
        return
    if stat.S_ISREG(facts.st_mode):
        seen = SeenFile(path, file_id(facts))
        found.files.append(seen)
        if _is_input(entry.name, path, found.rules):
            found.images.append(seen)
    elif stat.S_ISLNK(facts.st_mode):
        found.links.append(path)
    elif stat.S_ISDIR(facts.st_mode):
        if path.count(b"/") < MAX_DEPTH:
            below.append(path)
        else:
            found.unreadable.append((path, f"nested deeper than {MAX_DEPTH} directories"))


def _is_input(name: str, path: bytes, rules: Rules) -> bool:
    if not is_image(name) or is_temporary(name):
        return False
    return not rules.include or matches(os.fsdecode(path), rules.include)


def _is_marker(name: str, found: _Found) -> bool:
    """Note the marker files at the top of a folder; they are neither images nor reported as other files."""
    if name == HOLD_MARKER:
        found.hold_marker = True
        return True
    if name == found.rules.ready_file:
        found.ready = True
        return True
    return False


def _entries(here: int) -> Iterator[os.DirEntry[str]]:
    """Give one entry after the other: each keeps its stat, and a list of them is larger than all that is kept."""
    with os.scandir(here) as entries:
        yield from entries


def _is_plain_directory(entry: os.DirEntry[str]) -> bool:
    return not is_ignored(entry.name) and entry.is_dir(follow_symlinks=False)


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Stat an entry without following it; None where it has vanished since it was listed."""
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def _seen_in_root(root: bytes, entry: os.DirEntry[str], device: int, medium: int) -> tuple[os.stat_result, int] | None:
    """Stat an entry of a drop directory, which has that st_dev and that medium, and number the medium of the entry.

    None where it has vanished, and where a medium of its own is mounted on it and is away.
    """
    try:
        facts = _stat(entry)
        if facts is None:
            return None
        return facts, medium if facts.st_dev == device else mounts.medium(root + b"/" + os.fsencode(entry.name))
    except OSError as error:
        if is_away(error):
            return None
        raise


def _note(error: OSError, found: _Found, folder: bytes, directory: bytes) -> None:
    """Decide what an error about one directory means: gone, hidden by permissions, or a broken medium (raised)."""
    if isinstance(error, PermissionError):
        found.unreadable.append((directory or b".", "permission denied"))
        return
    if directory and error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
        return  # moved or replaced while we looked: the next scan sees what became of it
    shown = folder + b"/" + directory if directory else folder
    with media_errors(folder.rpartition(b"/")[0]) if is_away(error) else source_errors(shown):
        raise error
