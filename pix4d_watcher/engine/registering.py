"""The registration of uploaded images, in batches whose outcome is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.errors import Refused
from pix4d_watcher.core.model import Condition, HoldCode, ImageStatus, Learnt, State
from pix4d_watcher.engine.effects import Asking, CannotTell, Found, NotDone, hold_in_doubt, hold_refused, once
from pix4d_watcher.engine.polling import is_started
from pix4d_watcher.journal import effects, projects, service, views

if TYPE_CHECKING:
    from pix4d_watcher.cloud.rest import CloudProject
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Effect, Project

log = structlog.get_logger()

TOO_LARGE = 413
"""The status after which a batch is halved."""

Counted = tuple[int | None, str]
"""What is known of a batch: how many images the service says it took (None: it did not say), and a difference."""


def register(context: Context, project: Project) -> None:
    """Register what is uploaded; with nothing left the project is registered, or uploads go on for late images."""
    try:
        asked = once(context, project, _asking(context, project))
    except Refused as error:
        if error.status != TOO_LARGE:
            raise
        _halve(context, project, error)
        return
    if asked:
        return
    counts = views.counts(context.journal, project.id)
    if counts[ImageStatus.UPLOADED]:
        return
    if counts[ImageStatus.PENDING]:
        projects.advance(context.journal, project.id, State.UPLOADED, State.CREATED, "more images joined")
        return
    text = f"all {counts[ImageStatus.REGISTERED]} images are registered"
    projects.advance(context.journal, project.id, State.UPLOADED, State.REGISTERED, text)
    log.info("registered", project=project.title, images=counts[ImageStatus.REGISTERED])


def resolve(context: Context, project: Project) -> None:
    """Learn what became of an open batch, and ask for nothing new."""
    if views.open_effect(context.journal, project.id):
        once(context, project, _asking(context, project))


def counter_is_trusted(context: Context) -> bool:
    """Say whether an answered batch was seen to move `image_count` by its size."""
    return bool(service.get(context.journal, service.COUNTER_TRUSTED, default=False))


def _asking(context: Context, project: Project) -> Asking[Counted]:
    return Asking(
        intend=lambda: _intend(context, project),
        act=lambda effect: _act(context, project, effect),
        record=lambda effect, counted, learnt: _record(context, project, effect, counted, learnt),
        probe=lambda effect: _probe(context, project, effect),
        cannot_tell=lambda effect, why: _cannot_tell(context, project, effect, why),
        passes=frozenset({TOO_LARGE}),
    )


def _intend(context: Context, project: Project) -> Effect | None:
    counts = views.counts(context.journal, project.id)
    if not counts[ImageStatus.UPLOADED]:
        return None
    assert project.remote_id is not None
    # Asked before the intent: afterwards nobody could say what the count was without this batch.
    found = context.rest.project(project.remote_id)
    if _started_too_early(context, project, found):
        return None
    most = context.batch_sizes.get(project.id, context.settings.advanced.register_batch)
    # Any other count is late or somebody else's: an earlier batch that it still leaves out would be taken for this one.
    before = found.image_count if found.image_count == counts[ImageStatus.REGISTERED] else None
    return effects.intent_of_batch(context.journal, project.id, request={"count_before": before}, most=most)


def _started_too_early(context: Context, project: Project, found: CloudProject) -> bool:
    """Hold a project that somebody started in the cloud before all its images were registered: some are left out."""
    if HoldCode.INPUTS_DIFFER in project.accepted or not is_started(found):
        return False
    counts = views.counts(context.journal, project.id)
    text = (
        f"processing was started in the cloud's own page when {counts[ImageStatus.REGISTERED]} images were registered; "
        f"{counts[ImageStatus.UPLOADED]} more are uploaded. To register them too and follow that processing: "
        "pix4d-watcher approve FOLDER; to have all of them processed, start it in the cloud's page once more then"
    )
    projects.hold(context.journal, project.id, HoldCode.INPUTS_DIFFER, text)
    return True


def _act(context: Context, project: Project, effect: Effect) -> Counted:
    assert project.remote_id is not None
    keys = [f"{project.prefix}/{key}" for key in effect.request["keys"]]
    taken = context.rest.register(project.remote_id, keys)
    return taken, _difference(context, project, effect, taken)


def _difference(context: Context, project: Project, effect: Effect, taken: int | None) -> str:
    """Say what is wrong with an answer that names fewer images than were sent; empty if the counter explains it."""
    sent = len(effect.request["keys"])
    if taken is None or taken >= sent:
        return ""
    if counter_is_trusted(context) and _count_is(context, project, effect):
        return ""
    return f"{sent} images were sent to be registered, the cloud says that it took {taken}"


def _count_is(context: Context, project: Project, effect: Effect) -> bool:
    before = effect.request["count_before"]
    if before is None or project.remote_id is None:
        return False
    expected: int = before + len(effect.request["keys"])
    return context.rest.project(project.remote_id).image_count == expected


def _record(context: Context, project: Project, effect: Effect, counted: Counted, learnt: Learnt) -> None:
    taken, difference = counted
    hold = (HoldCode.INPUTS_DIFFER, difference) if difference else None
    effects.registered(context.journal, effect, learnt, {"taken": taken, "difference": difference}, hold=hold)
    log.info("batch registered", project=project.title, images=len(effect.request["keys"]), learnt=str(learnt))
    trusted = learnt is not Learnt.REPLY or difference or taken is None or counter_is_trusted(context)
    if not trusted and _count_is(context, project, effect):
        service.put(context.journal, service.COUNTER_TRUSTED, value=True)


def _probe(context: Context, project: Project, effect: Effect) -> Found[Counted] | NotDone | CannotTell:
    assert project.remote_id is not None
    before, sent = effect.request["count_before"], len(effect.request["keys"])
    count = context.rest.project(project.remote_id).image_count
    if count is None or before is None:
        return CannotTell("how many images the cloud counts does not tell whether these are among them")
    if count == before + sent:
        return Found((None, ""))
    if count != before:
        text = f"the cloud counts {count} images; {before} before and {before + sent} after this batch were expected"
        return Found((None, text))
    if counter_is_trusted(context):
        return NotDone(f"the cloud still counts {before} images")
    return CannotTell(f"the cloud counts {before} images, and its counter was not seen to move yet")


def _cannot_tell(context: Context, project: Project, effect: Effect, why: str) -> None:
    if project.condition is Condition.DROPPED:
        effects.undone(context.journal, effect, f"{why}; the project was given up")
    elif context.settings.cloud.register_in_doubt == "hold":
        hold_in_doubt(context, project, effect, why)
    elif effect.waits == 0:
        effects.waited(context.journal, effect)
        context.waits.begin("effect", effect.id)
    else:
        # The one effect whose repetition names the same things: the same keys of the same project.
        effects.undone(context.journal, effect, f"{why}; the same images are registered again")


def _halve(context: Context, project: Project, error: Refused) -> None:
    uploaded = views.counts(context.journal, project.id)[ImageStatus.UPLOADED]
    size = min(uploaded, context.batch_sizes.get(project.id, uploaded)) // 2
    if size < 1:
        hold_refused(context, project, error)
        return
    context.batch_sizes[project.id] = size
    log.info("smaller batches", project=project.title, images=size)
