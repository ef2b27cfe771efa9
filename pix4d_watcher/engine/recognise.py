"""Which folder of a listing is which project: by name, by number (device, inode), and in doubt by what was frozen.

Numbers alone do not tell: the next directory made gets the inode of one that was deleted, and a card that is mounted
again, FAT and network filesystems number their files anew. So numbers count only where they are `trusted`: on a local
filesystem that was not mounted again since the last look, or where the directory is older than its project.

A folder that may be one that a person was to be asked about, or that was given up, is a new one that is asked about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import SourceError
from pix4d_watcher.core.model import Condition, State
from pix4d_watcher.journal import splits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pix4d_watcher.intake.scan import FolderEntry, SeenFile, Tree
    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project


Versions = dict[bytes, tuple[int, int, bytes]]
"""Paths of images with size (bytes), mtime (ns) and SHA-256 as they were frozen."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a folder of the drop directory is looked into, only where name and number do not settle it.

    `local`: directories keep their numbers as long as they exist; `trusted`: the medium was not even mounted again
    since the last look, so that a number alone tells a renamed folder. `tree` scans a folder by its name;
    `digest` gives the SHA-256 of an image by the folder's name and its path. Both raise SourceError. `born` says when a
    folder was made (s since 1970), None where nothing tells. `known` are the matches of the last look, which need no
    second look into folders that are as they were; `matches` are those of this. `doubts` say of new folders why a
    person is to be asked about them.
    """

    journal: Journal
    local: bool
    trusted: bool
    tree: Callable[[bytes], Tree]
    digest: Callable[[bytes, bytes], bytes]
    born: Callable[[bytes], float | None]
    known: frozenset[tuple[int, FolderEntry]] = frozenset()
    matches: set[tuple[int, FolderEntry]] = field(default_factory=set)
    doubts: dict[FolderEntry, str] = field(default_factory=dict)


def recognise(
    look: Look, entries: Sequence[FolderEntry], present: Sequence[Project]
) -> tuple[dict[int, FolderEntry], list[FolderEntry]]:
    """Match the folders of a listing with the projects whose folder was present; return matches and new ones."""
    by_name: dict[bytes, list[Project]] = {}
    for project in present:
        by_name.setdefault(project.folder, []).append(project)
    names = {entry.name for entry in entries}
    # Where numbers are not trusted one counts only for a folder whose name is gone.
    movable = [project for project in present if look.trusted or project.folder not in names]
    by_number = {(project.device, project.inode): project for project in movable}
    matched: dict[int, FolderEntry] = {}
    fresh: list[FolderEntry] = []
    for entry in entries:
        candidates = _by_name(look, by_name.get(entry.name, []), entry)
        if numbered := by_number.get((entry.device, entry.inode)):
            candidates.insert(0 if look.trusted else len(candidates), numbered)
        found = next((one for one in candidates if one.id not in matched and _is(look, one, entry)), None)
        if found is None:
            fresh.append(entry)
            left = [one for one in candidates if one.id not in matched]
            if doubt := next((why for one in left if (why := _doubt(look, one, entry))), ""):
                look.doubts[entry] = doubt
        else:
            matched[found.id] = entry
            look.matches.add((found.id, entry))
    return matched, fresh


def _by_name(look: Look, projects: Sequence[Project], entry: FolderEntry) -> list[Project]:
    """Put the projects of a name in the order of likelihood: cards that take turns have folders of the same name."""
    if len(projects) < 2:
        return [*projects]
    return sorted(projects, key=lambda one: (one.device != entry.device, not _holds_frozen(look, one, entry), -one.id))


def _is(look: Look, project: Project, entry: FolderEntry) -> bool:
    named = project.folder == entry.name
    numbered = look.local and (project.device, project.inode) == (entry.device, entry.inode)
    given_up = project.condition is Condition.DROPPED
    if (project.id, entry) in look.known:
        return True
    if project.state is State.FOUND and (given_up or not (named or look.trusted)):
        return bool(_is_same(look, project, entry)) or (named and not look.local)  # nothing of it was frozen
    if not named and not look.trusted:
        return _holds_frozen(look, project, entry)  # renamed while the service was down
    if not given_up and project.state in (State.FOUND, State.SETTLED):
        return True
    if named and numbered and not given_up and project.state is not State.DELIVERED:
        return True
    return _holds(look, project, entry, named=named, numbered=numbered)


def _is_same(look: Look, project: Project, entry: FolderEntry) -> bool | None:
    """Say whether it is the very directory, whatever it is called; None where nothing tells.

    One that was made after the project was found only has the number of the one that it was found as.
    """
    if (project.device, project.inode) != (entry.device, entry.inode):
        return False if look.local else None
    born = look.born(entry.name) if look.local else None
    return None if born is None else born <= project.found_at


def _doubt(look: Look, project: Project, entry: FolderEntry) -> str:
    """Say why a person is to be asked about a folder that is not the project's; empty where it surely is another."""
    named, same = project.folder == entry.name, _is_same(look, project, entry)
    if project.state is State.FOUND:
        # A clock that was wrong when it was found makes it look older than its own directory.
        numbered = (project.device, project.inode) == (entry.device, entry.inode)
        if project.condition is Condition.ACTIVE or not (same is None or numbered or (named and not look.trusted)):
            return ""
        was = "was given up" if project.condition is Condition.DROPPED else "waited for approval"
        return f"it may be {project.title}, which {was} before anything of it was sent"
    if not (named and look.local and same is not False and _shares_paths(look, project, entry)):
        return ""
    return f"it is the folder of {project.title}, and none of its images is what it was"


def _shares_paths(look: Look, project: Project, entry: FolderEntry) -> bool:
    try:
        seen = look.tree(entry.name).images
    except SourceError:
        return True
    return not _frozen(look, project).keys().isdisjoint(file.path for file in seen)


def _holds_frozen(look: Look, project: Project, entry: FolderEntry) -> bool:
    """Say whether a folder of that name or number holds what was frozen."""
    try:
        return _has_frozen_images(look, _frozen(look, project), entry.name, look.tree(entry.name).images)
    except SourceError:
        return False


def _holds(look: Look, project: Project, entry: FolderEntry, *, named: bool, numbered: bool) -> bool:
    try:
        if seen := look.tree(entry.name).images:
            return _has_frozen_images(look, _frozen(look, project), entry.name, seen)
    except SourceError:
        return named
    # An empty directory of another device stands where the folder's own disk was mounted: it is away, not replaced.
    return numbered or (named and entry.device != project.device)


def is_mount_point(look: Look, project: Project, entry: FolderEntry) -> bool:
    """Say whether just the empty directory is there that the disk with a project's frozen images is mounted on."""
    if entry.device == project.device or project.state is State.FOUND:
        return False
    try:
        return not look.tree(entry.name).images
    except SourceError:
        return True


def is_member(look: Look, project: Project, name: bytes, *, member: bytes) -> bool:
    """Say whether a folder is the one that the project joined as `member`.

    Its name tells where nothing of it was frozen yet, or nothing lies in it.
    """
    frozen = _frozen(look, project, member + b"/")
    try:
        seen = look.tree(name).images
        return _has_frozen_images(look, frozen, name, seen) if seen and frozen else name == member
    except SourceError:
        return name == member


def _frozen(look: Look, project: Project, below: bytes = b"") -> Versions:
    """Map what was frozen below a path of the project's folder, in whichever of its parts, to how it was."""
    versions = splits.versions_of(look.journal, project)
    return {path[len(below) :]: version for path, version in versions.items() if path.startswith(below)}


def _has_frozen_images(look: Look, frozen: Versions, name: bytes, seen: Sequence[SeenFile]) -> bool:
    """Say whether an image that was frozen lies there: a chmod, touch or another mount makes no new flight.

    Path and size alone do not tell: cameras count from 1 again, and raw images of one camera are of equal size. Where
    the time differs, too, the content of the first and last of them decides. Raises SourceError.
    """
    alike = [file for file in seen if file.path in frozen and frozen[file.path][0] == file.file_id.size]
    if any(frozen[file.path][1] == file.file_id.mtime_ns for file in alike):
        return True
    return any(look.digest(name, file.path) == frozen[file.path][2] for file in {*alike[:1], *alike[-1:]})
