"""Which folders of a listing belong to which mission, and what a mission looks like as one folder.

A folder that was not complete yet when it matches the pattern, or is listed by another one's pix4d.yaml, joins. What
was complete before is a project of its own and stays one. Once frozen, a mission keeps its folders, follows their
renames and takes further ones as late images.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.errors import ConfigError, SourceError, SourceMissing
from pix4d_watcher.core.machine import before_create
from pix4d_watcher.core.model import Condition, HoldCode, State, printable, unprintable
from pix4d_watcher.engine.overrides import read_file
from pix4d_watcher.engine.recognise import is_member, recognise
from pix4d_watcher.intake.join import Mission, missions, union
from pix4d_watcher.journal import folders
from pix4d_watcher.journal import missions as verbs
from pix4d_watcher.journal.change import Stale
from pix4d_watcher.journal.missions import members_of
from pix4d_watcher.journal.splits import by_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pix4d_watcher.config import RootSettings
    from pix4d_watcher.engine.recognise import Look
    from pix4d_watcher.intake.scan import FolderEntry, Tree
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()


def tree_of(project: Project, scan: Callable[[bytes], Tree]) -> Tree:
    """Scan a project's folder, or all that it joins as one; `scan` takes a name. Raises SourceError.

    A folder of a mission that is gone is left out, as a sub-directory would be; SourceMissing where all are.
    """
    if project.members is None:
        return scan(project.folder)
    trees: dict[bytes, Tree] = {}
    for name in members_of(project):
        try:
            trees[name] = scan(name)
        except SourceMissing:
            continue
    if not trees:
        raise SourceMissing(f"{project.title}: none of its folders is there any more. Put them back.")
    return union(trees)


@dataclass
class Seen:
    """A listing, told apart.

    `there` are the projects whose folder was seen; `places` says where each single folder, or the first one of a
    mission, lies now, for one project of each folder; `fresh` are new; `waiting` are missions by their name.
    """

    there: set[int] = field(default_factory=set)
    places: dict[int, FolderEntry] = field(default_factory=dict)
    fresh: list[folders.NewFolder] = field(default_factory=list)
    waiting: dict[bytes, Mission] = field(default_factory=dict)


@dataclass(frozen=True)
class _Listing:
    """What the decisions about one listing share: all its folders by name, and those that nothing was decided about."""

    look: Look
    root: RootSettings
    names: dict[bytes, FolderEntry]
    free: dict[bytes, FolderEntry]
    seen: Seen


def tell_apart(look: Look, root: RootSettings, entries: Sequence[FolderEntry], present: Sequence[Project]) -> Seen:
    """Match a listing with the projects whose folder was present; records which folders join which mission.

    All parts of a folder that was split are matched together.
    """
    groups = by_folder(present)
    joined = [parts for parts in groups if parts[0].members is not None]
    plain = [parts[0] for parts in groups if parts[0].members is None]
    names = {entry.name: entry for entry in entries}
    seen = Seen()
    listing = _Listing(look, root, names, dict(names), seen)
    frozen = [parts for parts in joined if not _is_open(parts[0])]
    for parts in reversed(frozen):
        _claim(listing, parts)
    single, _fresh = recognise(look, list(listing.free.values()), plain)
    seen.places |= single
    for entry in single.values():
        del listing.free[entry.name]
    for parts in frozen:
        _follow_renamed(listing, parts)
    alone = {single[project.id].name: project for project in plain if project.id in single}
    _join(listing, alone, [parts for parts in joined if parts[0].condition is not Condition.DROPPED])
    for entry in listing.free.values():
        doubt = look.doubts.get(entry, "")
        seen.fresh.append(folders.NewFolder(entry.name, entry.device, entry.inode, doubt=doubt))
    seen.there |= {part.id for parts in groups for part in parts if parts[0].id in seen.places}
    return seen


def _is_open(project: Project) -> bool:
    """Whether a mission is still made of whatever matches it now: nothing of it was frozen yet."""
    return project.state is State.FOUND and project.condition is not Condition.DROPPED


def _may_join(project: Project) -> bool:
    """Whether a single folder may become a part of a mission: it was not complete, and no person spoke of it."""
    if project.paused or project.accepted or project.members is not None:
        return False
    if project.state is State.FOUND:
        return project.condition is Condition.ACTIVE
    # What its pix4d.yaml lists was not known while that could not be read.
    return project.state is State.SETTLED and project.hold_code is HoldCode.BAD_FOLDER_FILE


def _claim(listing: _Listing, parts: Sequence[Project]) -> None:
    """Take the folders of a frozen mission out of what is free, and let go of those that another one stands for."""
    look, mission = listing.look, parts[0]
    surely = mission.condition is Condition.DROPPED or before_create(mission.state)
    members = members_of(mission)
    replaced = set()
    for name in [name for name in members if name in listing.names]:
        entry = listing.free.get(name)
        if entry and (surely or (mission.id, entry) in look.known or is_member(look, mission, name, member=name)):
            look.matches.add((mission.id, entry))
            listing.seen.places.setdefault(mission.id, listing.free.pop(name))
        else:
            replaced.add(name)
    if replaced and mission.id in listing.seen.places:
        left = tuple(name for name in members if name not in replaced)
        verbs.members_changed(look.journal, [part.id for part in parts], members=left)


def _follow_renamed(listing: _Listing, parts: Sequence[Project]) -> None:
    """Take a new folder that holds the frozen images of one that is gone for that one under its new name."""
    look, mission, members = listing.look, parts[0], members_of(parts[0])
    for old in [member for member in members if member not in listing.names]:
        name = next((name for name in listing.free if is_member(look, mission, name, member=old)), None)
        if name is not None:
            verbs.member_renamed(look.journal, [part.id for part in parts], members=members, old=old, new=name)
            members = tuple(name if member == old else member for member in members)
            listing.seen.places.setdefault(mission.id, listing.free.pop(name))
            log.info("renamed", project=mission.title, folder=printable(old), to=printable(name))


def _join(listing: _Listing, alone: dict[bytes, Project], joined: Sequence[Sequence[Project]]) -> None:
    """Group what may join, and bring the missions in the journal in step; `alone` are the single folders by name."""
    root, new = listing.root, listing.free
    mine = {parts[0].folder: parts for parts in joined}
    absorbable = {name: project for name, project in alone.items() if _may_join(project)}
    free = sorted({*new, *absorbable})
    path = os.fsencode(root.path)
    lists = {name: listed for name in free if (listed := _listed(root, path + b"/" + name))}
    for mission in missions(free, pattern=root.join, lists=lists, taken=listing.names.keys() - set(free)):
        inside = [absorbable[name] for name in mission.members if name in absorbable]
        if mission.members and _bring_in_step(listing, mission, mine.pop(mission.name, None), inside):
            listing.seen.waiting[mission.name] = mission
            for name in mission.members:
                new.pop(name, None)
    for parts in mine.values():
        if _is_open(parts[0]) and parts[0].folder in new:
            verbs.dissolved(listing.look.journal, parts[0].id)
            listing.seen.places[parts[0].id] = new.pop(parts[0].folder)


def _bring_in_step(
    listing: _Listing, mission: Mission, parts: Sequence[Project] | None, inside: Sequence[Project]
) -> bool:
    """Bring the project of a mission in step with its folders; `inside` are single folders that become parts of it.

    False when a project went on meanwhile: it is looked at again.
    """
    journal, seen = listing.look.journal, listing.seen
    first, members = listing.names[mission.members[0]], mission.members
    if parts is not None and not _is_open(parts[0]):
        # Where another folder stands in the place of one of this mission, their images would get mixed up.
        mixed = verbs.has_images(journal, [part.id for part in parts], members)
        parts, members = (None, members) if mixed else (parts, tuple(dict.fromkeys((*members_of(parts[0]), *members))))
    try:
        if parts is not None:
            _enlarge(listing, parts, members, inside)
            seen.places.setdefault(parts[0].id, first)
        elif inside:
            kept = next((one for one in inside if one.folder == mission.name), inside[0])
            absorbed = [one.id for one in inside if one is not kept]
            verbs.joined(journal, kept.id, name=mission.name, members=members, absorbed=absorbed)
            log.info("joined", mission=printable(mission.name), folders=[printable(name) for name in members])
        else:
            doubt = next((why for name in members if (why := listing.look.doubts.get(listing.names[name]))), "")
            new = folders.NewFolder(mission.name, first.device, first.inode, members=members, doubt=doubt)
            seen.fresh.append(new)
    except Stale as changed:
        log.debug("looked again", mission=printable(mission.name), reason=str(changed))
        return False
    for project in inside:
        seen.places.pop(project.id, None)
        seen.there.add(project.id)
    return True


def _enlarge(
    listing: _Listing, parts: Sequence[Project], members: tuple[bytes, ...], inside: Sequence[Project]
) -> None:
    if members_of(parts[0]) != members or inside:
        ids = [part.id for part in parts]
        verbs.members_changed(listing.look.journal, ids, members=members, absorbed=[one.id for one in inside])
        log.info("joined", project=parts[0].title, folders=[printable(name) for name in members])


def _listed(root: RootSettings, folder: bytes) -> tuple[bytes, ...]:
    """Return what a folder's pix4d.yaml lists to join; nothing where it cannot be used: the checks say why."""
    try:
        found = read_file(root, folder)
    except (ConfigError, SourceError):
        return ()
    return tuple(unprintable(name) for name in found.join or ()) if found is not None else ()
