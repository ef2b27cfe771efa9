"""One scanner per drop directory: the scan is the truth, events only make it come sooner.

It turns what lies in the directory into projects, notices renamed, gone and late, and freezes a folder when it is
complete. A directory that does not answer holds up this scanner and nothing else.
"""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.errors import HostError, MediaAbsent, SourceError, SourceMissing
from pix4d_watcher.core.model import Condition, HoldCode, State, printable
from pix4d_watcher.engine import freezing, joining, late, sources
from pix4d_watcher.engine.beats import Wake
from pix4d_watcher.engine.recognise import Look, is_mount_point
from pix4d_watcher.host import mounts
from pix4d_watcher.host.logs import Repeats
from pix4d_watcher.intake.files import media_errors
from pix4d_watcher.intake.join import await_parts
from pix4d_watcher.intake.scan import list_root, scan_folder
from pix4d_watcher.intake.settle import Settling, is_complete
from pix4d_watcher.journal import folders, restored, splits, views
from pix4d_watcher.journal.change import Stale

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pix4d_watcher.config import RootSettings
    from pix4d_watcher.core.model import FrozenImage
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.intake.hints import Hints
    from pix4d_watcher.intake.join import Mission
    from pix4d_watcher.intake.scan import FolderEntry, RootListing, SeenFile, Tree
    from pix4d_watcher.intake.settle import Verdict
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()

DEBOUNCE = 0.5
"""Seconds that events are gathered before a scan: a copy of thousands of files is one scan a moment, not thousands."""

ABSENT_AGAIN = 5.0
"""Seconds between two looks for a drop directory that is away; a change of the mount table is quicker."""

ROOM_AGAIN = 1.0
"""Seconds between two looks whether the journal has room again."""

ASK_ABOVE = 10
"""Folders at the very first scan beyond which they are all held, where `existing` does not say what to do."""

POLL_EVERY = 10.0
"""Seconds between two scans where events do not arrive (network and FUSE filesystems, no watches left)."""

SAY_AGAIN = 5.0
"""Seconds between two notes of why a folder is not complete, since the reason counts seconds."""


@dataclass
class Folder:
    """What the scanner remembers of a folder that is not settled: its quiet time, and images that were read already."""

    settling: Settling
    frozen: dict[bytes, FrozenImage] = field(default_factory=dict)
    said: str = ""
    said_at: float = float("-inf")
    images: int = 0
    late: bool = False
    complete: tuple[Mission, float] | None = None  # since when all folders of a mission that are there are complete


class Scanner:
    """The scanner of one drop directory."""

    def __init__(self, context: Context, root: RootSettings, hints: Hints) -> None:
        self._context = context
        self._root = root
        self._path = os.fsencode(root.path)
        self._hints = hints
        self._rules = late.rules(root)
        self._folders: dict[int, Folder] = {}
        self._ahead: list[tuple[int, bytes, SeenFile]] = []
        self._missions: dict[bytes, Mission] = {}
        self._repeats = Repeats(log)
        self._written: tuple[object, ...] = ()
        self._identity: tuple[int, int] | None = None
        self._known: frozenset[tuple[int, FolderEntry]] = frozenset()
        self.wake = Wake()
        self.scanned = False
        self.absent = False
        self._watching = False

    @property
    def settling(self) -> bool:
        """Whether images that came late need nothing but time to be complete; before that the journal tells."""
        return any(folder.late for folder in list(self._folders.values()))

    def run(self) -> None:
        """Scan until the service stops; the work of one thread."""
        stop = self._context.stop
        next_full = 0.0
        while not stop.is_set():
            if self._context.world.is_disk_full:
                # What is found is written down, a large folder by megabytes: nothing is looked for until there is room.
                stop.wait(ROOM_AGAIN)
                continue
            now = time.monotonic()
            full = now >= next_full
            again = self._look(full=full)
            if not self.absent and self._hints.how(self._root.name).startswith("polling"):
                again = min(again, POLL_EVERY)
            if full and not self.absent:
                next_full = now + self._context.settings.advanced.scan_interval * random.uniform(0.75, 1.25)
                self.scanned = True
                restored.root_scanned(self._context.journal, self._root.name)
            until = min(now + again, max(next_full, now + DEBOUNCE))
            self._use_the_time(until)
            self.wake.wait(until - time.monotonic())
            stop.wait(DEBOUNCE)

    def _look(self, *, full: bool) -> float:
        """Scan once; return the seconds until the next look is worth it."""
        try:
            with self._at_root():
                if not self._watching:
                    self._hints.watch(self._root.name, self._path)
                    self._watching = True
                again = self._scan(full=full)
        except (SourceError, HostError) as error:
            folders.root_absent(self._context.journal, self._root.name, str(error))
            self._repeats.failed("root", "drop directory is away", root=self._root.name, reason=str(error))
            self.absent, self._written, self._identity = True, (), None
            return ABSENT_AGAIN
        self.absent = False
        self._repeats.recovered("root", "drop directory is back", root=self._root.name)
        return again

    def away(self, text: str) -> None:
        """Note that the drop directory does not answer; the supervision says so, since this thread itself may hang."""
        folders.root_absent(self._context.journal, self._root.name, text)
        self._repeats.failed("root", "drop directory is away", root=self._root.name, reason=text)
        # Whatever this thread is about to find out, it writes it once more at its next look.
        self.absent, self._written, self._identity = True, (), None
        self.wake.call()

    def _at_root(self) -> AbstractContextManager[None]:
        return self._context.media.at(self._root.name, stays=True)

    def _scan(self, *, full: bool) -> float:
        listing = list_root(self._path)
        if full or _identity(listing) != self._identity:
            self._hints.verify(self._root.name)
        known = views.root(self._context.journal, self._root.name)
        present = views.folders_of(self._context.journal, self._root.name)
        if known is not None and listing.empty and present and (known.device, known.inode) != _identity(listing):
            raise MediaAbsent(
                f"{printable(self._path)}: empty, and not the directory that was here before: its disk or card is "
                f"not mounted. Nothing is taken for deleted; work goes on by itself when it is back"
            )
        with media_errors(self._path):
            local = mounts.is_local(self._path)
        if full:
            self._known = frozenset()  # an archive of thousands is looked into now and then, not at every event
        there = self._reconcile(listing, present, first=known is None, local=local)
        self._note_root(listing, full=full)
        sources.tell_away(self._context, present, there)
        again = self._context.settings.advanced.scan_interval
        self._ahead = []
        here = views.folders_of(self._context.journal, self._root.name)
        self._forget_gone(present, {project.id for project in here})
        for parts in splits.by_folder(here):
            if self._context.stop.is_set():
                break
            self._context.media.check()
            taker = splits.taker(parts)
            for part in parts:
                if part is not taker:
                    self._forget(part)
            again = min(again, self._look_into(taker, full=full, local=local))
        return again

    def _reconcile(self, listing: RootListing, present: list[Project], *, first: bool, local: bool) -> set[int]:
        """Take in what is found, renamed and gone; returns the projects whose folder is there."""
        journal, identity = self._context.journal, _identity(listing)
        same = identity == self._identity
        known = self._known if same else frozenset()
        look = Look(journal, local, local and same, self._tree, self._digest, self._born, known)
        seen = joining.tell_apart(look, self._root, listing.folders, present)
        self._identity, self._missions, self._known = identity, seen.waiting, frozenset(look.matches)
        for project in present:
            entry = seen.places.get(project.id)
            # A mission keeps its name, whatever its folders are called.
            name = project.folder if entry is None or project.members is not None else entry.name
            if entry is None or is_mount_point(look, project, entry):
                continue
            if (project.folder, project.device, project.inode) != (name, entry.device, entry.inode):
                folders.folder_moved(journal, project.id, name=name, device=entry.device, inode=entry.inode)
        self._add(seen.fresh, first=first)
        # Another medium may stand at the same place: only what lay on this one can be gone from it.
        gone = [p.id for p in present if p.id not in seen.there and p.device == listing.device]
        if gone:
            folders.folders_gone(journal, gone)
        return seen.there

    def _add(self, new: list[folders.NewFolder], *, first: bool) -> None:
        if not new:
            return
        hold = ignore = None
        existing = self._root.existing
        if first and (existing == "ask" or (existing is None and len(new) > ASK_ABOVE)):
            others = f", as one of {len(new)} folders" if len(new) > 1 else ""
            hold = f"it was there at the very first scan of {self._root.name}{others}"
        elif first and existing == "ignore":
            ignore = "it was there at the very first scan, and `existing: ignore` leaves such folders alone"
        folders.folders_found(self._context.journal, self._root.name, new, hold=hold, ignore=ignore)
        for folder in new[:ASK_ABOVE]:
            held = bool(hold or folder.doubt)
            log.info("found", root=self._root.name, folder=printable(folder.name), held=held)

    def _note_root(self, listing: RootListing, *, full: bool) -> None:
        watching = self._hints.how(self._root.name)
        facts = (listing.device, listing.inode, len(listing.loose), watching)
        if not full and facts == self._written:
            return
        self._written = facts  # first, see `away`
        folders.root_seen(
            self._context.journal,
            self._root.name,
            self._path,
            device=listing.device,
            inode=listing.inode,
            loose=len(listing.loose),
            watching=watching,
        )

    def _tree(self, name: bytes) -> Tree:
        return scan_folder(self._path + b"/" + name, self._rules)

    def _digest(self, name: bytes, path: bytes) -> bytes:
        return freezing.freeze(self._context, self._path + b"/" + name, path).sha256

    def _born(self, name: bytes) -> float | None:
        return mounts.born(self._path + b"/" + name)

    def _look_into(self, project: Project, *, full: bool, local: bool) -> float:
        """Look into one folder if its state asks for it; return the seconds until the next look is worth it."""
        never = self._context.settings.advanced.scan_interval
        held = project.condition is Condition.HELD and project.state is State.FOUND
        # Such folders are looked into at full scans only, and then until what changed in them has settled.
        rarely = (held or late.is_started(project)) and not full and project.id not in self._folders
        if project.condition is Condition.DROPPED or project.paused or rarely:
            self._forget(project)
            return never
        try:
            tree = joining.tree_of(project, self._tree)
        except SourceMissing:
            return never
        except SourceError as error:
            self._say(project, Folder(Settling(self._root.settle)), 0, str(error))
            return ABSENT_AGAIN
        settled = project.state is not State.FOUND and tree.signature(with_inodes=local) == project.fingerprint
        late.answered(self._context, project, tree, settled=settled)
        if settled:
            self._forget(project)
            return never
        again = self._settle(project, tree, local=local, may_freeze=not held)
        return never if again is None else min(never, max(again, DEBOUNCE / 5))

    def _settle(self, project: Project, tree: Tree, *, local: bool, may_freeze: bool) -> float | None:
        """Judge whether a folder is complete and freeze it if so; None: a change has to come first."""
        path = sources.base(self._path, project)
        folder = self._folders.setdefault(project.id, Folder(Settling(self._root.settle)))
        # Once processing has started nothing joins any more: what came late is told, whatever else is to come.
        if late.is_started(project):
            tree = replace(tree, temporary=(), hold_marker=False, unreadable=())
        verdict = is_complete(folder.settling, path, tree, time.monotonic(), local=local)
        verdict = self._await_parts(project, folder, tree, verdict)
        moving = project.state is not State.FOUND and project.condition is Condition.ACTIVE
        folder.late = moving and verdict.again_in is not None
        if project.state is State.FOUND and not (verdict.complete and may_freeze):
            self._say(project, folder, len(tree.images), verdict.why if may_freeze else "")
        if verdict.complete and not may_freeze:
            self._forget(project)
            return None
        if verdict.complete:
            return self._freeze(project, folder, tree, local=local)
        if verdict.again_in is None:
            self._ask(project, folder, tree, verdict.why)
        for place in sources.places(self._path, project):
            self._hints.watch_folder(place)
        quiet = folder.settling.quiet_files(tree, time.monotonic())
        self._ahead += [(project.id, path, file) for file in quiet if not _has(folder, file)]
        return verdict.again_in

    def _await_parts(self, project: Project, folder: Folder, tree: Tree, verdict: Verdict) -> Verdict:
        """Have a mission wait for further folders before it is frozen; what comes later is late."""
        mission = self._missions.get(project.folder) if project.members is not None else None
        frozen = project.state is not State.FOUND and project.hold_code is not HoldCode.BAD_FOLDER_FILE
        if mission is None or frozen or not verdict.complete:
            folder.complete = None
            return verdict
        now = time.monotonic()
        if folder.complete is None or folder.complete[0] != mission:
            folder.complete = mission, now
        return await_parts(mission, verdict, tree, now - folder.complete[1], self._root.join_wait)

    def _freeze(self, project: Project, folder: Folder, tree: Tree, *, local: bool) -> float:
        """Freeze a complete folder; returns when to look again: soon if it changed meanwhile after all."""
        journal, path = self._context.journal, sources.base(self._path, project)
        anew = project.state in (State.FOUND, State.SETTLED) and project.split_of is None
        new = tree.images if anew else late.unknown(journal, project, tree)
        try:
            frozen = [self._frozen(folder, path, file) for file in new]
            again = joining.tree_of(project, self._tree).signature(with_inodes=local)
        except (SourceError, HostError) as error:
            if str(error) != folder.said:
                log.warning("cannot be read", project=project.title, reason=str(error))
            self._say(project, folder, len(tree.images), str(error), at_once=True)
            self._ask(project, folder, tree, str(error))
            return ABSENT_AGAIN
        if self._context.stop.is_set():
            return ABSENT_AGAIN
        fingerprint = tree.signature(with_inodes=local)
        if again != fingerprint:
            return DEBOUNCE
        try:
            freezing.record(self._context, project, frozen, tree, fingerprint)
        except Stale as changed:
            log.debug("looked again", project=project.title, reason=str(changed))
            return ABSENT_AGAIN
        self._forget(project)
        self._context.wake_steps.call()
        return self._context.settings.advanced.scan_interval

    def _ask(self, project: Project, folder: Folder, tree: Tree, why: str) -> None:
        """Have a person asked about late images that nothing but somebody's hand completes."""
        if folder.settling.quiet(time.monotonic()) >= late.PATIENCE * self._root.settle:
            folder.late = False
            with suppress(Stale):
                late.ask(self._context, project, tree, why)

    def _frozen(self, folder: Folder, path: bytes, file: SeenFile) -> FrozenImage:
        """Read an image unless it was read already in this version."""
        self._context.media.check()
        if not _has(folder, file):
            found = freezing.freeze(self._context, path, file.path)
            # One record of the version instead of two equal ones: a folder has thousands.
            folder.frozen[file.path] = replace(found, file_id=file.file_id) if found.file_id == file.file_id else found
        return folder.frozen[file.path]

    def _use_the_time(self, until: float) -> None:
        """Hash quiet images ahead, so that freezing has little left to read."""
        while self._ahead and not self._context.stop.is_set() and time.monotonic() < until:
            number, path, file = self._ahead.pop(0)
            folder = self._folders.get(number)
            if folder is None:
                continue
            try:
                with self._at_root():
                    self._frozen(folder, path, file)
            except (SourceError, HostError) as error:
                # Freezing meets it again and says so.
                log.debug("not read ahead", image=printable(file.path), reason=str(error))

    def _say(self, project: Project, folder: Folder, images: int, why: str, *, at_once: bool = False) -> None:
        now = time.monotonic()
        soon = why and not at_once and now - folder.said_at < SAY_AGAIN
        if images == folder.images and (why == folder.said or soon):
            return
        folder.said, folder.said_at, folder.images = why, now, images
        folders.still_settling(self._context.journal, project.id, images=images, why=why)

    def _forget_gone(self, before: list[Project], here: set[int]) -> None:
        for project in before:
            if project.id not in here:
                self._forget(project)
        self._folders = {number: folder for number, folder in self._folders.items() if number in here}

    def _forget(self, project: Project) -> None:
        if self._folders.pop(project.id, None) is not None:
            for place in sources.places(self._path, project):
                self._hints.unwatch(place)


def _identity(listing: RootListing) -> tuple[int, int]:
    return listing.device, listing.inode


def _has(folder: Folder, file: SeenFile) -> bool:
    found = folder.frozen.get(file.path)
    return found is not None and found.file_id == file.file_id
