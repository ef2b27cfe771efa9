"""The start of processing: it costs money, so it is never repeated blindly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.model import Condition, EffectKind, HoldCode, ImageStatus, Learnt, State
from pix4d_watcher.engine import approval, late, reconcile, template
from pix4d_watcher.engine.effects import Asking, CannotTell, Found, NotDone, hold_in_doubt, once
from pix4d_watcher.engine.polling import STARTED, cadence, end_cadence, is_started
from pix4d_watcher.engine.registering import counter_is_trusted
from pix4d_watcher.journal import effects, projects, views

if TYPE_CHECKING:
    from pix4d_watcher.cloud.rest import CloudProject
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Effect, Project

log = structlog.get_logger()

COUNT_AGAIN = 10.0
"""Seconds between two looks at a count of images that differs and may only be late."""


def start(context: Context, project: Project) -> None:
    """Start processing, or learn what became of an earlier try; a start made in the cloud's own page is followed."""
    if views.open_effect(context.journal, project.id) is None and not (
        # The look at the folder comes last, since the template may have taken long.
        _may_start(context, project) and template.bring(context, project) and not late.hold_up_start(context, project)
    ):
        return
    once(context, project, _asking(context, project))


def resolve(context: Context, project: Project) -> None:
    """Learn what became of an open start, and ask for nothing new."""
    if views.open_effect(context.journal, project.id):
        once(context, project, _asking(context, project))


def _may_start(context: Context, project: Project) -> bool:
    assert project.remote_id is not None
    found = context.rest.project(project.remote_id)
    if is_started(found):
        effects.started_elsewhere(context.journal, project.id)
        end_cadence(context, project)
        log.info("started elsewhere", project=project.title, remote_id=project.remote_id)
        return False
    if reconcile.before_start(context, project, found, lambda: _intend(context, project)):
        return False
    if _inputs_differ(context, project, found):
        return False
    asked = late.ask_before_start(context, project) or approval.ask_before_start(context, project)
    if asked is not None:
        projects.hold(context.journal, project.id, *asked, unless_accepted=True)
        return False
    root = context.root(project)
    assert root is not None
    if root.start == "manual" and HoldCode.MANUAL_START not in project.accepted:
        text = "all images are registered; processing starts when you say so"
        projects.hold(
            context.journal,
            project.id,
            HoldCode.MANUAL_START,
            text,
            due_at=context.after(cadence(context, root, project)),
            unless_accepted=True,
        )
        return False
    if project.hold_code is HoldCode.MANUAL_START:
        projects.lifted(context.journal, project.id, HoldCode.MANUAL_START, "the configuration says `start: auto` now")
    return True


def _inputs_differ(context: Context, project: Project, found: CloudProject) -> bool:
    """Hold the project when the cloud's count is still another one after `doubt_wait`: it may only be late."""
    if HoldCode.INPUTS_DIFFER in project.accepted or found.image_count is None or not counter_is_trusted(context):
        return False
    registered = views.counts(context.journal, project.id)[ImageStatus.REGISTERED]
    if found.image_count == registered:
        context.waits.end("count", project.id)
        return False
    if not context.waits.begun("count", project.id):
        context.waits.begin("count", project.id)
    left = context.waits.left("count", project.id, context.settings.advanced.doubt_wait)
    text = f"{registered} images were registered, the cloud counts {found.image_count}"
    if left > 0:
        again = context.after(min(left, COUNT_AGAIN))
        projects.waiting(context.journal, project.id, f"{text}; the count may be late", due_at=again)
    else:
        context.waits.end("count", project.id)
        projects.hold(context.journal, project.id, HoldCode.INPUTS_DIFFER, text, unless_accepted=True)
    return True


def _asking(context: Context, project: Project) -> Asking[None]:
    return Asking(
        intend=lambda: _intend(context, project),
        act=lambda effect: _act(context, project, effect),
        record=lambda effect, _nothing, learnt: _record(context, project, effect, learnt),
        probe=lambda effect: _probe(context, project, effect),
        cannot_tell=lambda effect, why: _cannot_tell(context, project, effect, why),
    )


def _intend(context: Context, project: Project) -> Effect:
    assert project.remote_id is not None
    found = context.rest.project(project.remote_id)
    # Read anew: the template's key was journalled a moment ago. The intent keeps the body, so that it stays the same.
    body = template.start_body(context, views.project(context.journal, project.id))
    request = {"body": body, "status": found.status, "processing_started": found.processing_started}
    return effects.intent(context.journal, project.id, EffectKind.START, State.REGISTERED, request=request)


def _act(context: Context, project: Project, effect: Effect) -> None:
    assert project.remote_id is not None
    context.rest.start(project.remote_id, effect.request["body"])


def _record(context: Context, project: Project, effect: Effect, learnt: Learnt) -> None:
    effects.started(context.journal, effect, learnt)
    end_cadence(context, project)
    log.info("started", project=project.title, remote_id=project.remote_id, learnt=str(learnt))


def _probe(context: Context, project: Project, effect: Effect) -> Found[None] | NotDone | CannotTell:
    assert project.remote_id is not None
    found = context.rest.project(project.remote_id)
    before = effect.request
    if found.processing_started not in (None, before["processing_started"]) or (
        found.status in STARTED and found.status != before["status"]
    ):
        return Found(None)
    if found.has_processing_started and found.status == before["status"]:
        return NotDone(f"the project is still {found.status or 'not processing'} and no start is recorded in the cloud")
    return CannotTell(f"the cloud says {found.status!r} and does not tell whether processing was started")


def _cannot_tell(context: Context, project: Project, effect: Effect, why: str) -> None:
    if project.condition is Condition.DROPPED:
        effects.undone(context.journal, effect, f"{why}; the project was given up, look at it in the cloud")
        return
    hold_in_doubt(context, project, effect, why)
