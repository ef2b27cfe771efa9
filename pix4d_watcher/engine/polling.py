"""Follows a project that processes to its end, without blind trust in words that the service does not document."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.model import HoldCode, State
from pix4d_watcher.engine.context import LONGEST_POLL
from pix4d_watcher.journal import projects

if TYPE_CHECKING:
    from pix4d_watcher.cloud.rest import CloudProject
    from pix4d_watcher.config import RootSettings
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()

FIRST_POLL = 30.0
"""Seconds between two questions about a project that was just started."""

LONG = 48 * 3600.0
"""Seconds; PIX4D says that processing takes up to 48 hours, so that more is worth a word."""

STARTED = frozenset({"PROCESSING", "DONE"})
"""The values of `public_status` that are documented; both mean that a start was applied."""

KNOWN = frozenset({"NEW", "PROCESSING", "WAITING", "QUEUED"})
"""Values of `public_status` that simply mean: not finished. Only PROCESSING is documented."""

LIFTED = {
    HoldCode.NO_CREDIT: "there are credits again",
    HoldCode.CLOUD_FAILED: "it runs again in the cloud: somebody started it there",
}
"""What is told when the cloud shows that the cause of a hold is gone."""


def poll(context: Context, project: Project) -> None:
    """Ask how far a started project is."""
    assert project.remote_id is not None
    root = context.root(project)
    assert root is not None
    found = context.rest.project(project.remote_id)
    said = f"{found.status} ({found.detailed_status})" if found.detailed_status else found.status
    projects.cloud_said(context.journal, project.id, said, f"the cloud says {said!r}")
    again = context.after(cadence(context, root, project))
    slowly = context.after(context.settings.advanced.retry_max)
    if found.status == "DONE":
        _done(context, project)
    elif found.status in context.settings.cloud.failure_statuses or found.error_reason:
        words = found.error_reason or found.detailed_status or "no reason given"
        text = f"processing ended with {found.status}: {words}"
        projects.hold(context.journal, project.id, HoldCode.CLOUD_FAILED, text, due_at=slowly)
        log.warning("processing failed", project=project.title, status=found.status, reason=words)
    elif _lacks_credits(found):
        text = f"the cloud says: {found.detailed_status or found.status}"
        projects.hold(context.journal, project.id, HoldCode.NO_CREDIT, text, due_at=again)
    else:
        _lift(context, project)
        projects.waiting(context.journal, project.id, _what_for(project, found), due_at=again)


def is_started(found: CloudProject) -> bool:
    """Say whether processing of a project was started, by whomever."""
    return bool(found.processing_started) or found.status in STARTED


def cadence(context: Context, root: RootSettings, project: Project) -> float:
    """Return the seconds until the next question: fixed where configured, else growing the longer it is asked.

    That is since this process first asked in the project's state, so that no jump of the clock makes it rare.
    """
    if root.poll is not None:
        return root.poll
    age = context.waits.age(_asked_in(project.state), project.id)
    return min(LONGEST_POLL, max(FIRST_POLL, age / 20)) * random.uniform(0.9, 1.1)


def end_cadence(context: Context, project: Project) -> None:
    """Forget for how long was asked: the project leaves its state."""
    context.waits.end(_asked_in(project.state), project.id)


def _asked_in(state: State) -> str:
    return f"asked in {state}"


def _done(context: Context, project: Project) -> None:
    _lift(context, project)
    end_cadence(context, project)
    context.waits.begin("outputs", project.id)
    projects.advance(context.journal, project.id, State.STARTED, State.PROCESSED, "processing is done")
    log.info("processed", project=project.title, remote_id=project.remote_id)


def _lift(context: Context, project: Project) -> None:
    if project.hold_code in LIFTED:
        projects.lifted(context.journal, project.id, project.hold_code, LIFTED[project.hold_code])


def _lacks_credits(found: CloudProject) -> bool:
    return "credit" in f"{found.status} {found.detailed_status}".lower()


def _what_for(project: Project, found: CloudProject) -> str:
    text = "processing in the cloud"
    if found.detailed_status:
        text += f": {found.detailed_status}"
    if found.status == "NEW":
        text = "the cloud says that it does not process (NEW); started in the cloud's own page it is followed"
    elif found.status not in KNOWN:
        text = f"the cloud says {found.status!r}, which this program does not know; it goes on asking"
    age = time.time() - (project.started_at or time.time())
    if age > LONG:
        text += f"; for {age / 3600:.0f} hours now, PIX4D says up to 48: look at the project in the cloud"
    return text
