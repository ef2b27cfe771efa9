"""Wakes the scanners when something may have changed: watchdog's events and changes of the mount table.

Owns the watches and says how each drop directory is watched; an event only ever calls `wake`, the scan is the truth.
watchdog loses events silently (queue overflow, the limit of watches, unmounts, directories made anew), so that watches
are there is asked of the kernel at every `verify`, never believed from threads that are alive.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import select
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from pix4d_watcher.host import mounts
from pix4d_watcher.intake.scan import list_directories

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.observers.api import BaseObserver, ObservedWatch

# watchdog spends a thread per watch (6.0: an inotify instance too, of 128 that a user has). Folders beyond this many
# watched directories are found quiet by the scans alone.
MAX_FOLDER_WATCHES = 64

# Not opened and closed-without-writing: our own reading causes these.
_EVENTS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]

# Where watchdog 7 says that the kernel's queue overflowed; it tells no handler.
_OVERFLOW_LOG = "watchdog.observers.inotify_c"

_WATCHED_INODE = re.compile(r"^inotify wd:\S+ ino:([0-9a-f]+)", re.MULTILINE)

_LIMITS = {
    errno.ENOSPC: "the limit of inotify watches is used up; raise it: sysctl fs.inotify.max_user_watches=1048576",
    errno.EMFILE: "the limit of inotify instances is used up; raise it: sysctl fs.inotify.max_user_instances=1024 "
    "(where that is not it: LimitNOFILE of the service)",
}


@dataclass(frozen=True, slots=True)
class _Watch:
    """One directory that is watched, and which directory stood at that path when it was."""

    scheduled: ObservedWatch
    identity: tuple[int, int]


@dataclass(slots=True)
class _Root:
    """The watches of one drop directory, and what prevents others; all keys are absolute paths.

    Each root has a lock of its own: one that does not answer must not hold up the others.
    """

    name: str
    path: bytes
    lock: threading.Lock = field(default_factory=threading.Lock)
    folders: set[bytes] = field(default_factory=set)
    watches: dict[bytes, _Watch] = field(default_factory=dict)
    troubles: dict[bytes, str] = field(default_factory=dict)


class _Waker(FileSystemEventHandler):
    """Turns any event into the name of its drop directory."""

    def __init__(self, wake: Callable[[str], None], root_name: str) -> None:
        self._wake = wake
        self._root_name = root_name

    def dispatch(self, event: FileSystemEvent) -> None:  # noqa: ARG002  the name is all that counts
        """Wake the scanner of the drop directory."""
        self._wake(self._root_name)


class Hints:
    """Wake-ups for drop directories; `wake` gets the name of a drop directory, must not block and must not raise.

    All methods may be called from any thread but the one that runs `wake`.
    """

    def __init__(self, wake: Callable[[str], None], *, is_network: Callable[[bytes], bool] = mounts.is_network) -> None:
        self._wake = wake
        self._is_network = is_network
        self._lock = threading.Lock()
        self._roots: dict[str, _Root] = {}
        self._observer: BaseObserver | None = None
        self._mounts = _MountTable(self._wake_all)
        logging.getLogger(_OVERFLOW_LOG).addFilter(self._overheard)

    def watch(self, root_name: str, path: bytes) -> str:
        """Watch a drop directory (not what lies below it); return how it is watched, as `how` says it."""
        root = _Root(root_name, path)
        with self._lock:
            self._roots[root_name] = root
            self._mounts.start()
        with root.lock:
            self._arm(root, path)
        return self.how(root_name)

    def watch_folder(self, path: bytes) -> None:
        """Watch the directories of a folder that settles; call it again after each scan, for directories made since."""
        for root in self._all_roots():
            if _is_within(path, root.path):
                with root.lock:
                    root.folders.add(path)
                    self._arm_folder(root, path)

    def unwatch(self, path: bytes) -> None:
        """End the watches on a folder, or on a drop directory with all its folders."""
        for root in self._all_roots():
            if not _is_within(path, root.path):
                continue
            with root.lock:
                root.folders = {folder for folder in root.folders if not _is_within(folder, path)}
                self._forget(root, [known for known in (*root.watches, *root.troubles) if _is_within(known, path)])
            if root.path == path:
                with self._lock:
                    del self._roots[root.name]

    def verify(self, root_name: str) -> bool:
        """Check that all watches of a drop directory are really there, and set those anew that are not.

        False means that events may have been lost since the last time: look at everything.
        """
        root = self._roots[root_name]
        with root.lock:
            alive, inodes = self._alive(), _inodes_watched()
            lost = [path for path, watch in root.watches.items() if not _stands(path, watch, alive, inodes)]
            complete = not lost and root.path in root.watches
            self._forget(root, lost)
            self._arm(root, root.path)
            for folder in root.folders:
                self._arm_folder(root, folder)
        return complete

    def how(self, root_name: str) -> str:
        """Say how a drop directory is watched: `inotify`, or `polling: ` and the reason."""
        root = self._roots[root_name]
        with root.lock:
            return f"polling: {root.troubles[min(root.troubles)]}" if root.troubles else "inotify"

    def stop(self) -> None:
        """End all watches and threads."""
        logging.getLogger(_OVERFLOW_LOG).removeFilter(self._overheard)
        self._mounts.stop()
        with self._lock:
            if self._observer is not None:
                self._observer.stop()
                self._observer.join()
                self._observer = None

    def _arm_folder(self, root: _Root, folder: bytes) -> None:
        directories = [folder + b"/" + below if below else folder for below in list_directories(folder)]
        wanted = set(directories)
        self._forget(
            root, [path for path in (*root.watches, *root.troubles) if _is_within(path, folder) and path not in wanted]
        )
        for directory in directories:
            roots = self._all_roots()
            if sum(len(one.watches) for one in roots) - len(roots) >= MAX_FOLDER_WATCHES:
                return
            self._arm(root, directory)

    def _arm(self, root: _Root, path: bytes) -> None:
        """Watch one directory and make sure of it; what prevents it is kept for `how`."""
        if path in root.watches:
            return
        root.troubles.pop(path, None)
        here = Path(os.fsdecode(path))
        try:
            # Also the place to hang where a filesystem does not answer: outside of watchdog's own lock.
            facts = here.stat()
            # Resolved: watchdog would watch a symlink itself, and not the directory that it stands for.
            scheduled = self._running_observer().schedule(
                _Waker(self._wake, root.name), str(here.resolve()), recursive=False, event_filter=_EVENTS
            )
        except OSError as error:
            if isinstance(error, FileNotFoundError) and path != root.path:
                return  # a directory of a folder, gone since it was listed
            root.troubles[path] = _LIMITS.get(error.errno or 0, f"it cannot be watched ({error.strerror})")
            return
        if facts.st_ino not in _inodes_watched():  # watchdog keeps silent about EACCES
            self._unschedule(scheduled)
            root.troubles[path] = "the kernel granted no watch; let this service's user read the directory"
            return
        root.watches[path] = _Watch(scheduled, (facts.st_dev, facts.st_ino))
        if self._is_network(path):
            root.troubles[path] = "this filesystem does not report what other machines write"

    def _running_observer(self) -> BaseObserver:
        with self._lock:
            if self._observer is not None and not self._observer.is_alive():
                self._observer.stop()
                self._observer = None
            if self._observer is None:
                observer = Observer()
                observer.start()
                self._observer = observer
            return self._observer

    def _alive(self) -> set[ObservedWatch]:
        """Return what watchdog watches by threads that live."""
        observer = self._observer
        if observer is None or not observer.is_alive():
            return set()
        return {emitter.watch for emitter in observer.emitters.copy() if emitter.is_alive()}

    def _forget(self, root: _Root, paths: list[bytes]) -> None:
        for path in paths:
            root.troubles.pop(path, None)
            if watch := root.watches.pop(path, None):
                self._unschedule(watch.scheduled)

    def _unschedule(self, scheduled: ObservedWatch) -> None:
        observer = self._observer
        if observer is not None:
            with contextlib.suppress(KeyError):  # watchdog has dropped it already, or was started anew
                observer.unschedule(scheduled)

    def _all_roots(self) -> list[_Root]:
        with self._lock:
            return list(self._roots.values())

    def _wake_all(self) -> None:
        # Without a lock: watchdog's reader runs this while another thread may wait for it.
        for name in tuple(self._roots):
            self._wake(name)

    def _overheard(self, record: logging.LogRecord) -> bool:
        if "overflow" in record.getMessage():
            self._wake_all()
        return True


class _MountTable:
    """A thread that calls `changed` at every mount and unmount."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._thread: threading.Thread | None = None
        self._end_read, self._end_write = -1, -1

    def start(self) -> None:
        """Begin to look at the mount table, once."""
        if self._thread is None:
            self._end_read, self._end_write = os.pipe2(os.O_CLOEXEC)
            # Opened here: from then on the kernel takes note of changes, however late the thread is.
            table = Path("/proc/self/mountinfo").open("rb")  # noqa: SIM115  (closed by the thread)
            self._thread = threading.Thread(target=self._run, args=(table,), name="mount table", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        if self._thread is not None:
            os.write(self._end_write, b".")
            self._thread.join()
            self._thread = None
            os.close(self._end_read)
            os.close(self._end_write)

    def _run(self, table: BinaryIO) -> None:
        with table:
            poll = select.poll()
            poll.register(table, select.POLLERR | select.POLLPRI)
            poll.register(self._end_read, select.POLLIN)
            while self._end_read not in {ready for ready, _ in poll.poll()}:
                self._changed()


def _stands(path: bytes, watch: _Watch, alive: set[ObservedWatch], inodes: set[int]) -> bool:
    """Whether the directory now at `path` is the one that is watched, by a live thread and by the kernel."""
    try:
        facts = Path(os.fsdecode(path)).stat()
    except OSError:
        return False
    return watch.scheduled in alive and (facts.st_dev, facts.st_ino) == watch.identity and facts.st_ino in inodes


def _is_within(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top.rstrip(b"/") + b"/")


def _inodes_watched() -> set[int]:
    """Ask the kernel which inodes this process watches: `inotify wd:1 ino:2a sdev:…` in /proc/self/fdinfo.

    Devices are not compared: btrfs and overlay show another number in stat.
    """
    inodes = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed since it was listed
            if str(descriptor.readlink()) == "anon_inode:inotify":
                facts = Path("/proc/self/fdinfo", descriptor.name).read_text(encoding="ascii")
                inodes |= {int(inode, 16) for inode in _WATCHED_INODE.findall(facts)}
    return inodes
