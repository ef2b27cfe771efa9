"""Images that come while their project is under way: which those are, what they change, and how the start waits.

Until the intent of the start is written they join, so that it is not written while some are still on their way.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pix4d_watcher.core.errors import SourceError
from pix4d_watcher.core.machine import ORDER
from pix4d_watcher.core.model import HoldCode, ImageStatus, Level, State, printable, unprintable
from pix4d_watcher.engine import joining, sources, splitting
from pix4d_watcher.host import mounts
from pix4d_watcher.intake.checks import CHECKS, DAMAGE, MIN_IMAGES, check_images, report_as_json
from pix4d_watcher.intake.names import image_in_progress
from pix4d_watcher.intake.scan import Rules, scan_folder
from pix4d_watcher.intake.settle import waits_for
from pix4d_watcher.journal import late, projects, splits, views
from pix4d_watcher.journal.removed import REMOVED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pix4d_watcher.config import RootSettings
    from pix4d_watcher.core.model import FrozenImage
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.intake.scan import SeenFile, Tree
    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.projects import Hold
    from pix4d_watcher.journal.records import Project

START_AGAIN = 15.0
"""Seconds between two looks of a start that waits; what the scanner finds out makes it due at once."""

PATIENCE = 10
"""How often `settle` must pass without a change before a person is asked about images that time does not complete."""


def rules(root: RootSettings) -> Rules:
    """Return which files of a drop directory's folders count."""
    return Rules(include=root.include, exclude=root.exclude, ready_file=root.ready_file)


def is_started(project: Project) -> bool:
    """Say whether processing has started, so that nothing can join any more."""
    return ORDER.index(project.state) >= ORDER.index(State.STARTED)


def unknown(journal: Journal, project: Project, tree: Tree) -> list[SeenFile]:
    """List the images of a folder that the journal does not know in the version that lies there, by size and mtime.

    Where the times of all have moved alike it is the clock of their card that is read in another way (FAT keeps the
    local time), and no content.
    """
    known = splits.newest_of(journal, project)
    versions = [(file, version) for file in tree.images if (version := known.get(file.path)) is not None]
    moved = {
        file.path: (file.file_id.size - size, file.file_id.mtime_ns - mtime_ns) for file, (size, mtime_ns) in versions
    }
    alike = len(moved) > 1 and len(set(moved.values())) == 1 and not next(iter(moved.values()))[0]
    return [file for file in tree.images if file.path not in known or (not alike and any(moved.get(file.path, ())))]


def sort_out(context: Context, project: Project, images: Sequence[FrozenImage]) -> list[FrozenImage]:
    """Give those of the images read anew that came late, and tell of the others: as they were, or rewritten when sent.

    New content in the place of an image that stayed behind is a late image, too.
    """
    known = {image.path: image for image in splits.images_of(context.journal, project)}
    before = [(known[image.path], image) for image in images if image.path in known]
    same = {old.id: new.file_id for old, new in before if old.sha256 == new.sha256}
    sent = (ImageStatus.UPLOADED, ImageStatus.REGISTERED)
    rewritten = [old for old, new in before if old.id not in same and old.status in sent]
    if before:
        late.seen_again(context.journal, project.id, same, rewritten)
    told = {old.path for old, _new in before if old.id in same or old.status is not ImageStatus.SKIPPED}
    return [image for image in images if image.path not in told]


def levels(root: RootSettings, project: Project) -> dict[str, Level]:
    """Return how strictly images that join are checked: by their damage as any, also those of a part."""
    known = {**CHECKS, **root.checks}
    return {**known, **splitting.levels(root, project), **{check: known[check] for check in DAMAGE}}


def report(
    context: Context, project: Project, came: Sequence[FrozenImage], skipped: Mapping[bytes, str]
) -> dict[str, Any]:
    """Judge the images of a project anew with those that join it; `skipped` are those of them that stay behind."""
    root = context.root(project)
    assert root is not None
    known = views.images_of(context.journal, project.id)
    new = {image.path: image for image in came}
    images = {image.path: image.frozen for image in known} | new
    behind = {image.path: image.reason or "" for image in known if image.status is ImageStatus.SKIPPED}
    behind = {path: why for path, why in behind.items() if path not in new} | dict(skipped)
    judged = [
        image
        for path, image in images.items()
        if path not in behind or (image.facts.problem and behind[path] != REMOVED)
    ]
    found = check_images(
        judged,
        not_images=[unprintable(name) for name in project.others or ()],
        levels=levels(root, project),
        accepted=project.accepted,
    )
    found = replace(found, images=len(images), skipped=tuple(sorted(behind.items())))
    # What was found by a look at other images than those that are sent stays as it was.
    stays = [one for one in (project.report or {}).get("findings", ()) if one["check"] in ("duplicates", "sent_before")]
    as_json = report_as_json(found)
    return {**as_json, "findings": as_json["findings"] + stays}


def ask_before_start(context: Context, project: Project) -> Hold | None:
    """Return the hold for what the checks say of a project that images have joined, before the start costs money."""
    root = context.root(project)
    assert root is not None
    findings = (project.report or {}).get("findings", ())
    holding = [one for one in findings if one["hold"] is not None and one["hold"] not in project.accepted]
    if holding:
        return HoldCode(holding[0]["hold"]), " ".join(one["text"] for one in holding)
    count = views.counts(context.journal, project.id)[ImageStatus.REGISTERED]
    asked = root.checks.get("too_many_images", Level.HOLD) is Level.HOLD
    if root.split is None or not asked or HoldCode.TOO_MANY_IMAGES in project.accepted:
        return None
    # So few that they would be no project of their own go with it, as where a folder is split.
    if count - root.split < MIN_IMAGES:
        return None
    text = (
        f"{count} images are in it with those that came late, and `split` is to make projects of at most {root.split}. "
        "To process them together: pix4d-watcher approve FOLDER; to give it up: pix4d-watcher drop FOLDER"
    )
    return HoldCode.TOO_MANY_IMAGES, text


def on_their_way(journal: Journal, project: Project, tree: Tree, *, settled: bool) -> str:
    """Say which images of a folder are still to join its project, and what they wait for; empty where none are.

    `settled`: it is as it was when the scanner looked last, which then knew all of its images.
    """
    known = splits.newest_of(journal, project)
    coming = [] if settled else [file.path for file in unknown(journal, project, tree)]
    for path in tree.temporary:
        above, slash, name = path.rpartition(b"/")
        whole = os.fsencode(image_in_progress(os.fsdecode(name)))
        if whole and above + slash + whole not in known:
            coming.append(path)
    if not coming and not tree.hold_marker:
        return ""
    named = ", ".join(printable(path) for path in coming[:3]) + (" …" if len(coming) > 3 else "")
    more = f"{len(coming)} more {'image is' if len(coming) == 1 else 'images are'} in the folder ({named})"
    until = waits_for(tree)
    return f"{more if coming else 'more images are announced'}, and not complete yet{f': {until}' if until else ''}"


def hold_up_start(context: Context, project: Project) -> bool:
    """Have the start wait for images that are still on their way; False where none are, or nobody can look.

    All images of the project are sent by then: it is finished without its card.
    """
    # What comes later joins the last part of a split folder that is open, and the others need not wait for it.
    takes = splits.taker(splits.parts_of(context.journal, project)).id == project.id
    if HoldCode.LATE_IMAGES in project.accepted or not project.present or not takes:
        return False
    root = context.root(project)
    if root is None or sources.is_media_absent(context, project):
        return False
    place = os.fsencode(root.path)
    try:
        with context.media.at(project.root, project.id):
            tree = joining.tree_of(project, lambda name: scan_folder(place + b"/" + name, rules(root)))
            settled = tree.signature(with_inodes=mounts.is_local(place)) == project.fingerprint
    except (SourceError, OSError):
        return False
    text = on_their_way(context.journal, project, tree, settled=settled)
    if text:
        projects.waiting(
            context.journal, project.id, f"{text}; processing starts with them", due_at=context.after(START_AGAIN)
        )
        context.wake_scanner(project.root)
    return bool(text)


def ask(context: Context, project: Project, tree: Tree, why: str) -> None:
    """Ask a person whether a start goes on without images that time alone does not complete.

    Once it is started, whether the project goes on without those that cannot even be read, where that is asked at all.
    """
    root, started = context.root(project), is_started(project)
    waits = project.state is State.REGISTERED or (started and root is not None and root.late_images == "hold")
    if not waits or HoldCode.LATE_IMAGES in (project.hold_code, *project.accepted):
        return
    text = on_their_way(context.journal, project, tree, settled=False)
    if text:
        text = text if waits_for(tree) else f"{text}: {why}"
        ways = (
            "It is too late for them to join; to go on without them: pix4d-watcher approve FOLDER"
            if started
            else "When they are complete they join by themselves; to start without them: pix4d-watcher approve FOLDER"
        )
        late.not_complete(context.journal, project.id, f"{text.rstrip('.')}. {ways}")


def answered(context: Context, project: Project, tree: Tree, *, settled: bool) -> None:
    """Lift the hold of `ask` where nothing is on its way any more."""
    asked = project.state is State.REGISTERED and project.hold_code is HoldCode.LATE_IMAGES
    if not asked or views.open_effect(context.journal, project.id) is not None:
        return
    if not on_their_way(context.journal, project, tree, settled=settled):
        text = "nothing more is on its way into the folder"
        projects.lifted(context.journal, project.id, HoldCode.LATE_IMAGES, text)
