"""What a complete folder means for its project: a manifest, images that join, or images that came too late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.machine import before_create
from pix4d_watcher.core.model import Condition, ImageStatus, Level, State, printable
from pix4d_watcher.engine import late
from pix4d_watcher.intake.freeze import freeze_image
from pix4d_watcher.intake.keys import give_keys
from pix4d_watcher.journal import folders, splits
from pix4d_watcher.journal import late as verbs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pix4d_watcher.core.model import FrozenImage
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.intake.scan import Tree
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()


def freeze(context: Context, folder: bytes, path: bytes) -> FrozenImage:
    """Read one image; raises SourceError."""
    return freeze_image(folder, path, blocks_above=context.settings.upload.multipart_threshold)


def record(context: Context, project: Project, images: Sequence[FrozenImage], tree: Tree, fingerprint: bytes) -> None:
    """Write what a complete folder holds; `images` are those that the journal does not know like that.

    Raises Stale when the project went on meanwhile.
    """
    if before_create(project.state) and project.split_of is None:
        if project.condition is not Condition.DROPPED:
            folders.frozen(context.journal, project.id, images, fingerprint=fingerprint, others=tree.not_images)
            log.info("settled", project=project.title, images=len(images))
    elif not (came := late.sort_out(context, project, images)):
        folders.looked_at(context.journal, project.id, fingerprint)
    elif project.state in (State.SETTLED, State.CREATED, State.UPLOADED, State.REGISTERED):
        _join(context, project, came, fingerprint)
    else:
        _too_late(context, project, came, fingerprint)


def _join(context: Context, project: Project, images: Sequence[FrozenImage], fingerprint: bytes) -> None:
    """Let images join that came before the start; damaged ones and copies of others stay behind, with their reason.

    What the checks say of all of them then is asked before the start.
    """
    root = context.root(project)
    assert root is not None
    levels = late.levels(root, project)
    known = splits.images_of(context.journal, project)
    by_content = {image.sha256: image.path for image in known if image.status is not ImageStatus.SKIPPED}
    skipped: dict[bytes, str] = {}
    for image in images:
        if image.facts.problem and levels[image.facts.problem] is not Level.OFF:
            skipped[image.path] = f"damaged: {image.facts.detail or image.facts.problem}"
        elif image.sha256 in by_content and levels["duplicates"] is not Level.OFF:
            skipped[image.path] = f"same content as {printable(by_content[image.sha256])}"
        else:
            by_content[image.sha256] = image.path
    if project.state is State.SETTLED:
        splits.late_in_settled_part(context.journal, project.id, images, skipped=skipped, fingerprint=fingerprint)
        return
    taken = [image.key for image in known if image.key and image.project_id == project.id]
    keys = give_keys([image.path for image in images if image.path not in skipped], taken=taken)
    folders.late_images(
        context.journal,
        project.id,
        images,
        keys=keys,
        skipped=skipped,
        fingerprint=fingerprint,
        report=late.report(context, project, images, skipped),
    )
    log.info("late images joined", project=project.title, images=len(keys), skipped=len(skipped))


def _too_late(context: Context, project: Project, images: Sequence[FrozenImage], fingerprint: bytes) -> None:
    shown = ", ".join(printable(image.path) for image in images[:3]) + (" …" if len(images) > 3 else "")
    count = "1 image came" if len(images) == 1 else f"{len(images)} images came"
    text = f"{count} after processing had started and {'was' if len(images) == 1 else 'were'} not sent: {shown}"
    root = context.root(project)
    policy = "hold" if root is None else root.late_images
    before = project.settled_at or 0.0
    uncovered = sum(image.file_id.ctime_ns < before * 1e9 for image in images)
    if policy == "round" and uncovered:
        # Not late but left out by `include` or `exclude` until now: nobody who changes those means to pay all again.
        text += f". {uncovered} of them lay there before it was complete; did the configuration leave them out then?"
        policy = "hold"
    log.warning("late images", project=project.title, images=len(images), policy=policy)
    if policy == "hold":
        verbs.held(context.journal, project.id, images, text=text, fingerprint=fingerprint)
    elif policy == "ignore":
        verbs.ignored(context.journal, project.id, images, text=text, fingerprint=fingerprint)
    else:
        new = verbs.in_new_round(context.journal, project.id, images, text=text, fingerprint=fingerprint)
        log.info("new round", project=new.title)
        # Nobody else looks at it soon: this scan knew only the project before.
        context.wake_scanner(project.root)
