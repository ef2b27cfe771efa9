"""After a restore: learns from the cloud what happened since the backup, before anything is sent.

A restore is a crash at every boundary at once. What the cloud shows is moved forward here: registered images, a start.
A creation or a start that the backup does not know becomes an open effect, so that the usual probe finds what it made;
where the cloud cannot tell, a person is asked, since a used twin or a second start costs money. Asks for GETs only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.errors import AuthRefused, NotSent, NotThere, Refused, RemoteError, Throttled, Unanswered
from pix4d_watcher.core.model import EffectKind, HoldCode, ImageStatus
from pix4d_watcher.engine.effects import hold_gone, hold_in_doubt, hold_refused
from pix4d_watcher.engine.fetching import COMPLETE
from pix4d_watcher.engine.polling import is_started
from pix4d_watcher.engine.registering import counter_is_trusted
from pix4d_watcher.journal import projects, restored, views
from pix4d_watcher.journal.change import Stale

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pix4d_watcher.cloud.rest import CloudProject
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Effect, Image, Project

log = structlog.get_logger()

UNKNOWN = (
    "the journal was restored from a backup that does not know this folder; it may have been sent since that backup. "
    "Look for it in the cloud. To send it: pix4d-watcher approve FOLDER; if it was sent: pix4d-watcher drop FOLDER"
)


def is_due(context: Context) -> bool:
    """Say whether the journal was restored and is not compared with the cloud yet."""
    found = restored.facts(context.journal)
    return found is not None and not found.compared


def compare(context: Context) -> bool:
    """Compare every project that may have gone on with the cloud; False when it has to be tried again."""
    for project in restored.to_compare(context.journal):
        context.beats.beat(context.patience)
        if context.stop.is_set():
            return False
        try:
            _compare_one(context, project)
        except (NotSent, Unanswered, AuthRefused, Throttled) as error:
            if context.world.is_to_blame(error) or not _gave_up(context, project, error):
                return False
        except Refused as error:
            if context.world.is_to_blame(error):
                return False
            if isinstance(error, NotThere):
                hold_gone(context, project, error)
            else:
                hold_refused(context, project, error)
        except Stale as changed:
            log.debug("looked again", project=project.title, reason=str(changed))
            return False
    restored.compared(context.journal, done=True)
    log.info("compared", text="the restored journal was compared with the cloud")
    return True


def ask_unknown(context: Context, project: Project) -> str:
    """Say why a person is asked before a folder is sent that the backup does not know; empty where nobody need be."""
    known = HoldCode.APPROVAL in project.accepted or not restored.is_unknown_to_backup(context.journal, project)
    return "" if known else UNKNOWN


def before_create(context: Context, project: Project, intend: Callable[[], Effect]) -> bool:
    """Stop a creation that may have happened already; True when that is looked up or asked first."""
    if views.open_effect(context.journal, project.id) is not None:
        return False
    if not restored.may_have_happened(context.journal, project, EffectKind.CREATE):
        return False
    effect = intend()
    log.info("looked up first", project=project.title, effect=str(effect.kind), reason="the journal was restored")
    return True


def created(context: Context, effect: Effect) -> None:
    """Have a project compared before anything is sent for it, when its creation was found after a restore."""
    if restored.is_from_before(context.journal, effect):
        restored.compared(context.journal, done=False)


def may_not_guess(context: Context, effect: Effect) -> bool:
    """Say whether only a person may decide on an effect that nobody can tell about: it is of a lost time."""
    return restored.is_from_before(context.journal, effect)


def is_own_receipt(context: Context, project: Project, place: Path) -> bool:
    """Say whether results are of this very project, delivered in the time that a restored journal does not know.

    Then it was not sent before by another: its creation is looked up and found.
    """
    if not restored.may_have_happened(context.journal, project, EffectKind.CREATE):
        return False
    try:
        return f"[{project.marker}]" in (place / COMPLETE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def before_start(context: Context, project: Project, found: CloudProject, intend: Callable[[], Effect]) -> bool:
    """Stop a start that may have been made after the backup where the cloud does not tell; True: a person is asked."""
    if found.has_processing_started or not restored.may_have_happened(context.journal, project, EffectKind.START):
        return False
    why = f"the cloud says {found.status!r} and not whether processing was started after the journal's backup"
    hold_in_doubt(context, project, intend(), why)
    return True


def _compare_one(context: Context, project: Project) -> None:
    assert project.remote_id is not None
    found = context.rest.project(project.remote_id)
    images = [
        image for image in views.images_of(context.journal, project.id) if image.status is not ImageStatus.SKIPPED
    ]
    missing = [image for image in images if image.status is not ImageStatus.REGISTERED]
    registered, count = len(images) - len(missing), found.image_count
    if is_started(found):
        says_nothing = count is None or (count <= registered and not counter_is_trusted(context))
        since = _registered_since(context, project, missing, None if says_nothing else (count or 0) - registered)
        late = [image for image in missing if image not in since]
        text = f"processing was started after the backup; the cloud counts {count} images"
        restored.caught_up(context.journal, project, since, text, started=True, late=late)
    elif count is not None and count > registered:
        since = _registered_since(context, project, missing, count - registered)
        text = f"{len(since)} images were registered after the backup; the cloud counts {count}"
        restored.caught_up(context.journal, project, since, text, started=False)
        if count > len(images):
            text = f"the cloud counts {count} images, the restored journal knows {len(images)}"
            projects.hold(context.journal, project.id, HoldCode.INPUTS_DIFFER, text)
    log.info("compared", project=project.title, status=found.status, counted=count, registered=registered)


def _registered_since(context: Context, project: Project, missing: list[Image], number: int | None) -> list[Image]:
    """Choose the images that were registered after the backup: `number` of those that lie in the cloud, None: all.

    Batches are taken in the order of the paths. Should that be wrong here, the count differs before the start.
    """
    if number == len(missing):
        return missing
    line, there = context.line(), []
    try:
        for image in missing:
            context.beats.beat(context.patience)
            found = context.buckets.of(project.remote_id or 0).head(line, f"{project.prefix}/{image.key}")
            there += [image] if found and found[0] == image.size else []
    except AuthRefused:
        raise
    except Refused as error:
        log.info("cannot look", project=project.title, reason=str(error))
        there = missing
    finally:
        line.close()
    return there if number is None else there[: max(number, 0)]


def _gave_up(context: Context, project: Project, error: RemoteError) -> bool:
    """Note that one project cannot be compared; after some tries a person has to look, and the others go on."""
    tries = projects.trouble(context.journal, project.id, str(error), due_at=context.after(0))
    if tries < MAX_TRIES:
        return False
    text = f"it could not be compared with the cloud after the restore: {error}"
    projects.hold(context.journal, project.id, HoldCode.TRIES_EXHAUSTED, text)
    return True


MAX_TRIES = 5
"""Failed tries to compare one project while the cloud answers for others."""
