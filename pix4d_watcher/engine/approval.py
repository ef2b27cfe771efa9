"""Money: a project that would cost more than `approve_above` waits until a person has agreed, once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pix4d_watcher.core.model import HoldCode, ImageStatus
from pix4d_watcher.journal import views

if TYPE_CHECKING:
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.projects import Hold
    from pix4d_watcher.journal.records import Project


def ask(context: Context, project: Project, credits_: float) -> Hold | None:
    """Return the hold for a project that is estimated to cost so many credits, None where nobody need be asked."""
    root = context.root(project)
    assert root is not None
    limit = root.approve_above
    if limit is None or credits_ <= limit or HoldCode.APPROVAL in project.accepted:
        return None
    if math.isclose(credits_, limit):  # the same images, summed in another order
        return None
    text = (
        f"it would cost about {credits_:.2f} credits (an estimate: megapixels x images / 100), and above {limit:g} "
        "credits a person is asked. To send and pay it: pix4d-watcher approve FOLDER; never to send it: "
        "pix4d-watcher drop FOLDER"
    )
    return HoldCode.APPROVAL, text


def ask_before_start(context: Context, project: Project) -> Hold | None:
    """Ask once more before the start, which is what costs money: images may have joined since the checks."""
    root = context.root(project)
    if root is None or root.approve_above is None or HoldCode.APPROVAL in project.accepted:
        return None
    sent = [image for image in views.images_of(context.journal, project.id) if image.status is ImageStatus.REGISTERED]
    return ask(context, project, sum(image.frozen.facts.megapixels for image in sent) / 100)
