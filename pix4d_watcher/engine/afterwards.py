"""What becomes of a delivered folder after its retention: it is archived or deleted, where configured, after proof.

The rule about time: the retention must be over by two clocks. By this machine's since the delivery, and by the cloud's
since it was first asked after the delivery. So no jump of this machine's clock, and no start in 1970, puts anything
away too early; where both disagree the folder stays.
The rule about doubt: whatever is not proven keeps the folder, and is said. No error path removes anything.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.errors import DiskFull, HostError, MediaAbsent, NotThere, RemoteError, SourceError, Throttled
from pix4d_watcher.core.model import Condition, ImageStatus, State, printable, round_name, with_suffix
from pix4d_watcher.engine import putaway
from pix4d_watcher.engine.download import RESERVE
from pix4d_watcher.engine.media import HANGS, WRITES
from pix4d_watcher.engine.putaway import Copied, NotAllowed
from pix4d_watcher.engine.waits import backoff
from pix4d_watcher.host import durable, mounts
from pix4d_watcher.intake.freeze import same_content
from pix4d_watcher.intake.scan import Rules, scan_folder
from pix4d_watcher.journal import afterwards, views
from pix4d_watcher.journal.change import Stale
from pix4d_watcher.journal.missions import members_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pix4d_watcher.config import RootSettings
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Image, Project

log = structlog.get_logger()

TICK = 1.0
"""Seconds between two looks for folders whose retention is over."""

LOOK_AGAIN = 3600.0
"""Most seconds between two looks at a folder that is kept for a while."""

AWAY_AGAIN = 60.0
"""Seconds between two looks for a folder whose medium is away."""

MAX_TRIES = 10
"""Failed tries to put a folder away before it is kept for good."""


class Kept(Exception):
    """The folder stays for good: what was to be proven is not so; the text says why."""


class NotYet(Exception):
    """The folder stays for now; `again` is in how many seconds it is looked at again."""

    def __init__(self, text: str, again: float) -> None:
        """Keep when to look again beside the reason."""
        self.again = min(max(again, 1.0), LOOK_AGAIN)
        super().__init__(text)


class Stopped(Exception):
    """The service stops; what was begun is continued at the next start."""


class Afterwards:
    """The thread that puts delivered folders away."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._roots = [root for root in context.settings.watch if root.after != "keep"]

    def run(self) -> None:
        """Look for folders whose retention is over until the service stops; the work of one thread."""
        context = self._context
        while self._roots and not context.stop.is_set():
            if not context.paused and context.world.pause is None:
                self._look()
            context.beats.rest()
            context.stop.wait(TICK)

    @property
    def due(self) -> bool:
        """Whether a folder is due to be put away now."""
        return any(self._due(root) for root in self._roots)

    def _due(self, root: RootSettings) -> list[Project]:
        return afterwards.due(
            self._context.journal, root.name, retention=root.retention, horizon=LOOK_AGAIN + self._context.horizon
        )

    def _look(self) -> None:
        context = self._context
        for root in self._roots:
            for project in self._due(root):
                if context.stop.is_set() or context.paused or context.world.pause is not None:
                    return
                context.beats.beat(context.patience)
                fresh = views.project(context.journal, project.id)
                if fresh.put_away is not None and not afterwards.is_under_way(fresh):
                    continue  # it was put away together with another part of its folder
                try:
                    put_away(context, root, fresh)
                except Stopped:
                    return


def put_away(context: Context, root: RootSettings, project: Project) -> None:
    """Archive or delete the folder of one project, or say why it stays."""
    group = [project]
    try:
        if project.kept_since is None:
            afterwards.counted_from(context.journal, project, _cloud_now(context, project))
            return
        group = _whole_group(context, root, project)
        with _at_root(context, root, project):
            _is_there(context, root, group)
        for one in group:
            context.beats.beat(context.patience)
            _prove(context, root, one)
        with _at_root(context, root, project):
            _look_for_strangers(context, root, group)
        with _at_root(context, root, project, patience=WRITES):
            (_archive if root.after == "archive" else _delete)(context, root, group)
    except NotYet as reason:
        afterwards.later(context.journal, project, str(reason), due_at=context.after(reason.again))
    except (Kept, NotAllowed) as reason:
        _keep(context, group, str(reason))
    except DiskFull as error:
        afterwards.later(context.journal, project, str(error), due_at=context.after(LOOK_AGAIN))
    except (RemoteError, HostError, SourceError) as error:
        _trouble(context, group, project, error)
    except Stale as changed:
        log.debug("looked again", project=project.title, reason=str(changed))


def _trouble(
    context: Context, group: list[Project], project: Project, error: RemoteError | HostError | SourceError
) -> None:
    if isinstance(error, RemoteError) and context.world.is_to_blame(error):
        return
    if isinstance(error, NotThere):
        _keep(context, group, str(error))
        return
    advanced = context.settings.advanced
    pause = backoff(project.tries, advanced.retry_base, advanced.retry_max)
    counts = not isinstance(error, Throttled)
    tries = afterwards.later(context.journal, project, str(error), due_at=context.after(pause), counts=counts)
    log.warning("folder not put away yet", project=project.title, tries=tries, reason=str(error))
    if tries >= MAX_TRIES:
        afterwards.kept(context.journal, group, f"{tries} tries failed: {error}")


def _keep(context: Context, group: list[Project], reason: str) -> None:
    afterwards.kept(context.journal, group, reason)
    log.warning("folder kept", project=group[0].title, reason=reason)


def _whole_group(context: Context, root: RootSettings, project: Project) -> list[Project]:
    """Return all projects that the folder belongs to; raises NotYet until each of them may be put away."""
    group = afterwards.sharing(context.journal, project) or [project]
    for one in group:
        ready = one.state is State.DELIVERED and one.condition is Condition.ACTIVE and not one.paused
        left = root.retention - (time.time() - (one.delivered_at or time.time()))
        if not ready or left > 0:
            text = f"the folder stays until {one.title}, which it belongs to as well, is done and its retention over"
            raise NotYet(text, max(left, context.settings.advanced.retry_max))
    return group


@contextmanager
def _at_root(context: Context, root: RootSettings, project: Project, patience: float = HANGS) -> Iterator[None]:
    try:
        with context.media.at(root.name, project.id, patience=patience), putaway.errors(os.fsencode(root.path)):
            yield
    except MediaAbsent as away:
        raise NotYet(str(away), AWAY_AGAIN) from away


def _is_there(context: Context, root: RootSettings, group: Sequence[Project]) -> None:
    """Raise NotYet where the medium is another one or away: there everything would look as if it were gone."""
    known = views.root(context.journal, root.name)
    try:
        facts, medium = os.stat(_place(root)), mounts.medium(_place(root))  # noqa: PTH116  (names are bytes)
    except OSError as error:
        raise NotYet(f"the drop directory is away ({error.strerror})", AWAY_AGAIN) from error
    if known is None or not known.present or (known.device, known.inode) != (medium, facts.st_ino):
        raise NotYet("the drop directory is away, or another medium", AWAY_AGAIN)
    there = any(os.path.lexists(_place(root) + b"/" + top) for top in _tops(group))
    if not there and not any(afterwards.is_under_way(project) for project in group):
        raise NotYet("the folder is gone from the drop directory", AWAY_AGAIN)


def _prove(context: Context, root: RootSettings, project: Project) -> None:
    """Ask the cloud whether the project is done, counts its images, and is old enough; raises Kept or NotYet."""
    assert project.remote_id is not None
    assert project.delivered_at is not None
    found = context.rest.project(project.remote_id)
    if found.status != "DONE":
        text = f"the cloud does not say any more that project {project.remote_id} is done, but {found.status!r}"
        raise NotYet(text, LOOK_AGAIN)
    registered = views.counts(context.journal, project.id)[ImageStatus.REGISTERED]
    if found.image_count != registered:
        raise NotYet(f"{registered} images were registered, and the cloud counts {found.image_count}", LOOK_AGAIN)
    if project.kept_since is None:
        raise NotYet("the retention of another part of the folder just begins", root.retention)
    by_cloud = _cloud_now(context, project) - project.kept_since
    left = root.retention - min(by_cloud, time.time() - project.delivered_at)
    if left > 0:
        raise NotYet("by the cloud's clock the retention is not over yet; is this machine's clock ahead?", left)


def _cloud_now(context: Context, project: Project) -> float:
    """Return the cloud's time (s since 1970); it comes with S3 credentials, in every answer of the guide's sample."""
    assert project.remote_id is not None
    return time.time() + context.rest.s3_grant(project.remote_id).skew


def _look_for_strangers(context: Context, root: RootSettings, group: Sequence[Project]) -> None:
    """Raise NotYet while the folder holds images that are not known, or that are still being copied."""
    rules = Rules(root.include, root.exclude, root.ready_file)
    known = {path for project in group for path in _paths(context, project)}
    place = _place(root)
    for top in _tops(group):
        if not _lies(group, place, top):
            continue
        tree = scan_folder(place + b"/" + top, rules)
        if tree.unreadable:
            hidden = _some([path for path, _why in tree.unreadable])
            raise NotYet(f"the folder holds what cannot be read ({hidden}) and is not put away", LOOK_AGAIN)
        strangers = [image.path for image in tree.images if top + b"/" + image.path not in known]
        if strangers or tree.temporary or tree.hold_marker:
            what = f"images that were not sent ({_some(strangers)})" if strangers else "files that are being copied"
            raise NotYet(f"the folder holds {what} and is not put away", LOOK_AGAIN)


def _delete(context: Context, root: RootSettings, group: Sequence[Project]) -> None:
    """Remove exactly the registered images, then the directories that are empty."""
    if all(project.put_away != afterwards.deleting() for project in group):
        afterwards.begun(context.journal, group, afterwards.deleting())
    place, tops = _place(root), _tops(group)
    images = _registered(context, group) if any(_lies(group, place, top) for top in tops) else {}
    local = mounts.is_local(place)

    def is_same(path: bytes, facts: os.stat_result) -> bool:
        _alive(context)
        image = images[path]
        if (facts.st_size, facts.st_mtime_ns) != (image.size, image.mtime_ns):
            return False
        if local and facts.st_ino != image.inode:
            return False
        # Times can be set back, and a remount may number files anew: then the content tells.
        return same_content(place, replace(image.frozen, path=path), blocks_above=image.size + 1) is not None

    outcome = putaway.remove(place, images, is_same)
    putaway.remove_empty(place, {*tops, *putaway.parents(images)})
    gone = not any(_lies(group, place, top) for top in tops)
    text = f"{outcome.removed} images deleted after {root.retention / 86400:.1f} days"
    if outcome.changed:
        text += f"; {len(outcome.changed)} stay, since they are not what was sent: {_some(outcome.changed)}"
    if not gone:
        text += "; the folder stays, since it is not empty"
    afterwards.finished(context.journal, group, afterwards.DELETED, text, gone=gone)
    log.info("deleted", project=group[0].title, images=outcome.removed, left=len(outcome.changed), gone=gone)


def _archive(context: Context, root: RootSettings, group: Sequence[Project]) -> None:
    """Move each directory of the folder to a free name in the archive."""
    assert root.archive_to is not None
    archive = os.fsencode(root.archive_to) + b"/" + root.name.encode()
    try:
        durable.make_directories(root.archive_to / root.name)
    except OSError as error:
        raise HostError(f"{printable(archive)}: the archive cannot be used: {error.strerror}") from error
    tops = _tops(group)
    names = next((names for one in group if (names := afterwards.planned_names(one))), None)
    if names is None or len(names) != len(tops):
        names = [_free_name(archive, _wanted(group[0], top)) for top in tops]
        afterwards.begun(context.journal, group, afterwards.archiving(names))
    place, left = _place(root), 0
    for top, name in zip(tops, names, strict=True):
        left += _archive_one(context, group, place, top, archive + b"/" + name)
    gone = not any(_lies(group, place, top) for top in tops)
    text = f"moved to {', '.join(printable(archive + b'/' + name) for name in names)}"
    if not gone:
        text += f"; {left} files changed meanwhile and stay" if left else "; what came meanwhile stays"
    afterwards.finished(context.journal, group, afterwards.ARCHIVED, text, gone=gone)
    log.info("archived", project=group[0].title, to=printable(archive), gone=gone)


def _archive_one(context: Context, group: Sequence[Project], place: bytes, top: bytes, target: bytes) -> int:
    """Bring one directory to the archive, from wherever an earlier try ended; returns how many changed files stay."""
    source = place + b"/" + top
    if not _lies(group, place, top):
        if os.path.lexists(target):
            return 0
        raise Kept("the folder is gone, and it is not in the archive")
    _is_ours(group, source, top)
    if os.path.lexists(target):
        # It was copied completely before: the name is given only then. Unless somebody else took it. Where no byte is
        # left in the folder it ended between the last file and the directory: nothing is there to compare or to lose.
        copied = putaway.compare(source, target, lambda: _alive(context))
        if not copied and putaway.size_of(source):
            raise Kept(f"{printable(target)} was taken by something else; nothing was moved")
    elif putaway.move(source, target):
        return 0
    else:
        _need_room(source, target)
        part = target.rpartition(b"/")[0] + b"/." + group[0].marker.encode() + b".part"
        known = _known(context, group, top)
        copied = putaway.copy(source, target, part, known, lambda: _alive(context))
    return len(putaway.remove_copied(place, top, target, copied).changed)


def _is_ours(group: Sequence[Project], source: bytes, top: bytes) -> None:
    """Raise NotYet where another directory has the folder's name now; the scan finds out what it is."""
    facts, medium = os.lstat(source), mounts.medium(source)
    single = next((project for project in group if project.members is None and project.folder == top), None)
    if single and mounts.is_local(source) and (medium, facts.st_ino) != (single.device, single.inode):
        raise NotYet("another folder has this name now", LOOK_AGAIN)


def _known(context: Context, group: Sequence[Project], top: bytes) -> dict[bytes, Copied]:
    """Return what is known of the images of one directory, by their paths in it."""
    images = _registered(context, group)
    prefix = top + b"/"
    return {
        path[len(prefix) :]: Copied(image.frozen.file_id, image.sha256)
        for path, image in images.items()
        if path.startswith(prefix)
    }


def _need_room(source: bytes, target: bytes) -> None:
    needed, free = putaway.size_of(source), mounts.free_bytes(target)
    if free < needed + RESERVE:
        raise DiskFull(f"{printable(target)}: the archive has no room for another {needed / 1e6:.0f} MB")


def _alive(context: Context) -> None:
    """Raise Stopped when the service stops; also ends here a thread that another one has taken the place of."""
    context.media.check()
    if context.stop.is_set():
        raise Stopped


def _place(root: RootSettings) -> bytes:
    """Return the drop directory itself, where it is configured as a link; below it no link is followed."""
    return os.path.realpath(os.fsencode(root.path))


def _tops(group: Sequence[Project]) -> list[bytes]:
    """List the directories of a folder as they are called on disk: one, or all that are joined."""
    return sorted({name for project in group for name in members_of(project) or (project.folder,)})


def _lies(group: Sequence[Project], place: bytes, top: bytes) -> bool:
    """Say whether a directory is there; what has the name of a folder that a scan saw to be gone is another one."""
    return any(project.present for project in group) and os.path.lexists(place + b"/" + top)


def _from_root(project: Project, path: bytes) -> bytes:
    return path if project.members is not None else project.folder + b"/" + path


def _paths(context: Context, project: Project) -> list[bytes]:
    return [_from_root(project, path) for path in views.paths_of(context.journal, project.id)]


def _registered(context: Context, group: Sequence[Project]) -> dict[bytes, Image]:
    return {
        _from_root(project, image.path): image
        for project in group
        for image in views.images_of(context.journal, project.id)
        if image.status is ImageStatus.REGISTERED
    }


def _wanted(project: Project, top: bytes) -> bytes:
    """Return the name that a folder gets in the archive: its own, with the round like its results."""
    return round_name(top, project.round)


def _free_name(archive: bytes, name: bytes) -> bytes:
    number, candidate = 1, name
    while os.path.lexists(archive + b"/" + candidate):
        number += 1
        candidate = with_suffix(name, b"_%d" % number)
    return candidate


def _some(paths: Sequence[bytes]) -> str:
    return ", ".join(printable(path) for path in paths[:3]) + (" …" if len(paths) > 3 else "")
