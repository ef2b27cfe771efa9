"""What is decided about a complete folder before any money is spent: the checks, the keys, and what a person is asked.

The outcome is one report and perhaps one hold, written in one transaction; the next step creates the project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.model import HoldCode, unprintable
from pix4d_watcher.engine import already, approval, creating, decoding, overrides, reconcile, splitting
from pix4d_watcher.intake.checks import check_images, report_as_json
from pix4d_watcher.intake.keys import give_keys
from pix4d_watcher.journal import projects, views
from pix4d_watcher.journal.removed import REMOVED
from pix4d_watcher.journal.removed import removed as removed_by_person
from pix4d_watcher.journal.sent import content_set

if TYPE_CHECKING:
    from pix4d_watcher.core.model import Report
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.projects import Hold
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()


def check(context: Context, project: Project) -> None:
    """Check a settled folder, and once that is done, create its project."""
    if project.report is not None:
        creating.create(context, project)
        return
    # The parts of a folder share what its file said before it was split.
    taken = overrides.take_in(context, project) if project.split_of is None else (project, None)
    if taken is None:
        return
    project, unusable = taken
    root = context.root(project)
    assert root is not None
    if project.split_of is None and not decoding.finished(context, project):
        return
    left_out = splitting.left_out(context, project)
    left_out |= dict.fromkeys(removed_by_person(context.journal, project.id), REMOVED)
    images = [image for image in views.frozen_of(context.journal, project.id) if image.path not in left_out]
    report = check_images(
        images,
        not_images=[unprintable(name) for name in project.others or ()],
        levels=splitting.levels(root, project),
        accepted=project.accepted,
    )
    skipped = left_out | dict(report.skipped)
    keys = give_keys([image.path for image in images if image.path not in skipped])
    hashes = [image.sha256 for image in images if image.path in keys]
    report = already.judged(context, project, report, hashes)
    hold = unusable or _hold(report, keys) or _ask(context, project, report)
    if hold is None and splitting.split(context, project, keys, skipped):
        return
    projects.checked(
        context.journal,
        project.id,
        report_as_json(report),
        skipped=skipped,
        keys=keys,
        hold=hold,
        fingerprint=project.fingerprint,
        content_set=content_set(hashes),
        alone=already.is_new(project, report),
    )
    log.info(
        "checked",
        project=project.title,
        images=report.images,
        sendable=report.sendable,
        megapixels=round(report.megapixels),
        credits=round(report.credits, 1),
        held=hold[0] if hold else None,
    )


def _ask(context: Context, project: Project, report: Report) -> Hold | None:
    """Return what a person is asked, all at once: who approves the cost must know that it may be paid already."""
    dear = approval.ask(context, project, report.credits)
    asked = [text for text in (reconcile.ask_unknown(context, project), dear and dear[1]) if text]
    return (HoldCode.APPROVAL, ". ".join(asked)) if asked else None


def _hold(report: Report, keys: dict[bytes, str]) -> Hold | None:
    """Return the first cause to stop, with the texts of all findings that would."""
    if report.holding:
        code = report.holding[0].hold
        assert code is not None
        return code, " ".join(finding.text for finding in report.holding)
    return None if keys else (HoldCode.TOO_FEW_IMAGES, "no image is left that can be sent")
