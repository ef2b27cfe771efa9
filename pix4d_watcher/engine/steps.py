"""One step of one project: looks at the last durable fact and does what leads to the next one.

A step is short, returns, and leaves in the journal when to look again. Guarded calls stand in `creating`,
`registering` and `starting`, results in `fetching`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.errors import (
    AuthRefused,
    CredentialsExpired,
    DiskFull,
    HostError,
    MediaAbsent,
    NotThere,
    Refused,
    RemoteError,
    SourceError,
    SourceUnreadable,
    Throttled,
)
from pix4d_watcher.core.model import Condition, HoldCode, ImageStatus, State
from pix4d_watcher.engine import checking, creating, effects, fetching, polling, registering, sources, starting
from pix4d_watcher.engine.waits import backoff
from pix4d_watcher.journal import afterwards, projects, views
from pix4d_watcher.journal.change import Stale

if TYPE_CHECKING:
    from collections.abc import Callable

    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()

MAX_TRIES = 20
"""Failed tries of one step before a person is asked: with pauses doubling to `retry_max` (10 min) about two hours."""

LOOK_AGAIN = 60.0
"""Seconds between two looks at a project whose uploads wake it anyway: the net below the wake-up."""

SOURCE_AGAIN = 15.0
"""Seconds between two looks whether an absent medium is back; the scanner's wake-up is usually quicker."""


def step(context: Context, project: Project) -> None:
    """Take one project one step further; every outcome that a person may need is in the journal afterwards."""
    try:
        _do(context, project)
    except Stale as changed:
        log.debug("looked again", project=project.title, reason=str(changed))
        projects.put_off(context.journal, project, due_at=context.after(context.settings.advanced.retry_base))
    except RemoteError as error:
        _remote_trouble(context, project, error)
    except DiskFull as error:
        again = context.after(context.settings.advanced.retry_max / 10)
        projects.hold(context.journal, project.id, HoldCode.DISK_FULL, str(error), due_at=again)
        if project.hold_code is not HoldCode.DISK_FULL:
            log.warning("held", project=project.title, code=str(HoldCode.DISK_FULL), reason=str(error))
    except MediaAbsent as error:
        # Nobody's fault: no try is used up, however long it lasts.
        projects.trouble(context.journal, project.id, str(error), due_at=context.after(SOURCE_AGAIN), counts=False)
    except (HostError, SourceError) as error:
        _try_later(context, project, str(error))
    else:
        context.throttled.pop(project.id, None)


def _do(context: Context, project: Project) -> None:
    if project.condition is Condition.DROPPED:
        settle_dropped(context, project)
        return
    if context.root(project) is None:
        text = f"the drop directory {project.root!r} is not in the configuration any more"
        projects.waiting(context.journal, project.id, text, due_at=context.after(context.settings.advanced.retry_max))
        return
    if project.condition is Condition.HELD and project.hold_code is HoldCode.MEDIA_ABSENT:
        _is_source_back(context, project)
        return
    _STEPS[project.state](context, project)


def settle_dropped(context: Context, project: Project) -> None:
    """Learn what became of the open effect of a project that a person gave up, and close it."""
    _OPEN_EFFECTS[project.state](context, project)


def _upload(context: Context, project: Project) -> None:
    if project.condition is Condition.HELD:
        _is_source_back(context, project)
        return
    counts = views.counts(context.journal, project.id)
    if counts[ImageStatus.PENDING]:
        context.wake_uploads.call()
        text = "its images are being sent"
        projects.waiting(context.journal, project.id, text, due_at=context.after(LOOK_AGAIN))
        # The last image may have arrived since they were counted, and made the project due before this.
        counts = views.counts(context.journal, project.id)
    if counts[ImageStatus.PENDING]:
        return
    sent = counts[ImageStatus.UPLOADED] + counts[ImageStatus.REGISTERED]
    projects.advance(context.journal, project.id, State.CREATED, State.UPLOADED, f"all {sent} images are uploaded")
    log.info("uploaded", project=project.title, images=sent)


def _is_source_back(context: Context, project: Project) -> None:
    code = project.hold_code
    assert code is not None
    if not sources.is_media_absent(context, project) and _can_be_read(context, project):
        projects.lifted(context.journal, project.id, code, "the images may be readable again: trying")
    else:
        projects.hold(context.journal, project.id, code, project.hold_text or "", due_at=context.after(SOURCE_AGAIN))


def _can_be_read(context: Context, project: Project) -> bool:
    """Read an image that the project is held for: else each look would hold it, and tell people, anew."""
    if project.hold_code is not HoldCode.SOURCE_UNREADABLE:
        return True
    images, text = views.images_of(context.journal, project.id), project.hold_text or ""
    failing = [image for image in images if image.status is ImageStatus.PENDING and image.error]
    image = min(failing, key=lambda image: (image.error or "") not in text, default=None)
    if image is None:
        return True
    try:
        sources.read_again(context, project, image)
    except (SourceUnreadable, MediaAbsent):
        return False
    except SourceError as error:
        log.debug("another trouble by now", project=project.title, reason=str(error))
    return True


def _let_go(context: Context, project: Project) -> None:
    """Lift what was to lift by itself in an earlier state: nothing is left to be done."""
    assert project.hold_code is not None
    projects.lifted(context.journal, project.id, project.hold_code, "it is done")


def _remote_trouble(context: Context, project: Project, error: RemoteError) -> None:
    if isinstance(error, Throttled):
        pause = error.retry_after or backoff(
            context.throttled[project.id] + 3, 1.0, context.settings.advanced.retry_max
        )
        context.throttled[project.id] += 1
        projects.trouble(context.journal, project.id, str(error), due_at=context.after(pause), counts=False)
    elif context.world.is_to_blame(error):
        # The service is paused: nobody's try was used up, and the project is due when it goes on.
        projects.trouble(context.journal, project.id, str(error), due_at=context.after(0), counts=False)
    elif isinstance(error, NotThere):
        effects.hold_gone(context, project, error)
    elif isinstance(error, Refused) and not (
        isinstance(error, (AuthRefused, CredentialsExpired)) or project.condition is Condition.DROPPED
    ):
        effects.hold_refused(context, project, error)
    else:
        _try_later(context, project, str(error))


def wait_for_medium(context: Context, project_id: int, text: str, *, root: str) -> None:
    """Say of a project why it stands still: the thread that is at its files cannot, and the others go on."""
    project, due = views.project(context.journal, project_id), context.after(SOURCE_AGAIN)
    if project.state is State.DELIVERED:
        afterwards.later(context.journal, project, text, due_at=due)
    elif project.state in (State.SETTLED, State.CREATED) and root == project.root:
        projects.hold(context.journal, project.id, HoldCode.MEDIA_ABSENT, text, due_at=due)
    else:
        projects.waiting(context.journal, project.id, text, due_at=due)


def _try_later(context: Context, project: Project, text: str) -> None:
    advanced = context.settings.advanced
    pause = backoff(project.tries, advanced.retry_base, advanced.retry_max)
    tries = projects.trouble(context.journal, project.id, text, due_at=context.after(pause))
    log.warning("failed", project=project.title, tries=tries, again_in=round(pause, 1), reason=text)
    if tries >= MAX_TRIES:
        projects.hold(context.journal, project.id, HoldCode.TRIES_EXHAUSTED, f"{tries} tries failed: {text}")


_STEPS: dict[State, Callable[[Context, Project], None]] = {
    State.SETTLED: checking.check,
    State.CREATED: _upload,
    State.UPLOADED: registering.register,
    State.REGISTERED: starting.start,
    State.STARTED: polling.poll,
    State.PROCESSED: fetching.fetch,
    State.DELIVERED: _let_go,
}

_OPEN_EFFECTS: dict[State, Callable[[Context, Project], None]] = {
    State.SETTLED: creating.create,
    State.UPLOADED: registering.resolve,
    State.REGISTERED: starting.resolve,
}
