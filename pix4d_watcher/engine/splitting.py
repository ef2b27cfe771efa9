"""A folder with more images than one project is to have becomes several projects, in the order of the flight.

Decided once, after the whole folder was checked and nothing holds it; then each part is checked and sent by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.model import ImageStatus, Level
from pix4d_watcher.intake.checks import CHECKS, MIN_IMAGES
from pix4d_watcher.journal import splits, views

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pix4d_watcher.config import RootSettings
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()


def begins(paths: Sequence[bytes], most: int) -> list[bytes]:
    """Return the path that begins each part but the first, for parts of at most `most` images in the order of paths.

    Their sizes differ by one at most. No part has fewer images than a project needs: rather one has more than `most`.
    """
    ordered = sorted(paths)
    parts = min(-(-len(ordered) // most), len(ordered) // MIN_IMAGES) or 1
    return [ordered[len(ordered) * number // parts] for number in range(1, parts)]


def levels(root: RootSettings, project: Project) -> Mapping[str, Level]:
    """Return how strictly the images are checked: too many are no problem where they are split.

    A part is never held for its images: the whole folder was checked before, and what held it was accepted.
    """
    if project.split_of is not None:
        known = {**CHECKS, **root.checks}
        return {check: Level.WARN if level is Level.HOLD else level for check, level in known.items()}
    return root.checks if root.split is None else {**root.checks, "too_many_images": Level.OFF}


def left_out(context: Context, project: Project) -> dict[bytes, str]:
    """Map the images of a part that were left out by the check of its folder, or came late, to the reason."""
    if project.split_of is None:
        return {}
    images = views.images_of(context.journal, project.id)
    return {image.path: image.reason or "" for image in images if image.status is ImageStatus.SKIPPED}


def split(context: Context, project: Project, keys: Mapping[bytes, str], skipped: Mapping[bytes, str]) -> bool:
    """Split a checked folder where that is configured and needed; says whether it did. Raises Stale."""
    root = context.root(project)
    assert root is not None
    if root.split is None or project.split_of is not None or len(keys) <= root.split:
        return False
    starts = begins(list(keys), root.split)
    if not starts:
        return False
    known = project.fingerprint
    splits.split(context.journal, project.id, starts=starts, skipped=skipped, keys=keys, fingerprint=known)
    context.wake_steps.call()
    log.info("split", project=project.title, images=len(keys), parts=len(starts) + 1)
    return True


def title_suffix(project: Project) -> str:
    """Return what tells the parts of a folder apart by name, empty for a whole one."""
    return f" ({project.split_part} of {project.split_of})" if project.split_of is not None else ""
