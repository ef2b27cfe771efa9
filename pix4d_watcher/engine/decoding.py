"""Decodes images of a settled folder, a slice at a step, so that a long folder holds up no worker and no stop.

What was decoded is in the journal after each slice; a crash costs one. The file that is decoded may be gone or another
one by now: then the scan has the word, which sees that too and has the folder frozen anew.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.errors import MediaAbsent, SourceError, SourceUnreadable
from pix4d_watcher.core.model import Condition, HoldCode, Level, printable
from pix4d_watcher.engine import sources
from pix4d_watcher.intake.decode import chosen, decode
from pix4d_watcher.journal import facts, projects, views
from pix4d_watcher.journal.removed import removed

if TYPE_CHECKING:
    from pix4d_watcher.core.model import FrozenImage
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()

SLICE = 2.0
"""Seconds that one step decodes, and one image more: short against the heartbeat, long against a flush of the disk."""

AGAIN = 15.0
"""Seconds between two looks at an image that is gone or changed; the scan is usually quicker."""


def finished(context: Context, project: Project) -> bool:
    """Decode for a while; say whether no image of the folder is left that `decode` asks for."""
    root = context.root(project)
    assert root is not None
    taken_out = removed(context.journal, project.id)
    images = [image for image in views.frozen_of(context.journal, project.id) if image.path not in taken_out]
    # Whoever sends damaged images as they are need not know about them.
    unasked = root.decode == "off" or root.checks.get("truncated") is Level.OFF
    left = [] if unasked else chosen(images, root.decode)
    if not left:
        if project.hold_code is HoldCode.SOURCE_UNREADABLE:
            projects.lifted(context.journal, project.id, project.hold_code, "no image is left to be read for the check")
            return False
        return True
    done: list[FrozenImage] = []
    trouble = _slice(context, project, left, done)
    rest = len(left) - len(done)
    text = "its images are decoded" + (f" to find damage, {rest} of {len(images)} are left" if rest else "")
    facts.decoded(context.journal, project.id, done, waiting=text, due_at=context.after(0))
    damaged = [image for image in done if image.facts.problem]
    if damaged:
        first = damaged[0]
        log.warning("damaged", project=project.title, images=len(damaged), first=printable(first.path))
    if trouble is not None:
        _wait_for_source(context, project, trouble)
        return False
    if project.condition is Condition.HELD:
        assert project.hold_code is not None
        projects.lifted(context.journal, project.id, project.hold_code, "the images can be read again")
        return False
    return len(done) == len(left)


def _slice(
    context: Context, project: Project, images: list[FrozenImage], done: list[FrozenImage]
) -> SourceError | None:
    """Decode images until the time is up; return what is wrong with the next one's file, if anything is."""
    until = time.monotonic() + SLICE
    for image in images:
        try:
            # Three workers that decode at once would take three times the memory.
            with context.media.at(project.root, project.id, alone=True):
                done.append(replace(image, facts=decode(sources.base_path(context, project), image)))
        except SourceError as error:
            return error
        if time.monotonic() >= until or context.stop.is_set():
            break
    return None


def _wait_for_source(context: Context, project: Project, error: SourceError) -> None:
    if isinstance(error, MediaAbsent) or sources.is_media_absent(context, project):
        text = f"{sources.what_is_away(context, project)}; its images could not be read"
        text = str(error) if isinstance(error, MediaAbsent) else text
        projects.hold(context.journal, project.id, HoldCode.MEDIA_ABSENT, text, due_at=context.after(AGAIN))
    elif isinstance(error, SourceUnreadable):
        due = context.after(sources.LOOK_AGAIN)
        projects.hold(context.journal, project.id, HoldCode.SOURCE_UNREADABLE, str(error), due_at=due)
    else:
        projects.waiting(context.journal, project.id, str(error), due_at=context.after(AGAIN))
        context.wake_scanner(project.root)
