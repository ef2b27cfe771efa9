"""The creation of a project: found again by the marker in its name."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.errors import Refused
from pix4d_watcher.core.model import Condition, EffectKind, Learnt, State, printable
from pix4d_watcher.engine import reconcile, splitting
from pix4d_watcher.engine.effects import Asking, CannotTell, Found, NotDone, hold_in_doubt, once
from pix4d_watcher.journal import effects, views

if TYPE_CHECKING:
    from pix4d_watcher.cloud.rest import CloudProject
    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Effect, Project

log = structlog.get_logger()

LONGEST_NAME = 200
"""Characters of the template's result that are kept; an assumption, the service's bound on names is not published."""


def create(context: Context, project: Project) -> None:
    """Create the project in the cloud, or learn what became of an earlier try."""
    if reconcile.before_create(context, project, lambda: _intend(context, project, restored=True)):
        return
    once(
        context,
        project,
        Asking(
            intend=lambda: _intend(context, project),
            act=lambda effect: _of_its_own(
                context, effect, context.rest.create(effect.request["name"], effect.request["fields"])
            ),
            record=lambda effect, found, learnt: _record(context, project, effect, found, learnt),
            probe=lambda effect: _probe(context, effect),
            cannot_tell=lambda effect, why: _cannot_tell(context, project, effect, why),
        ),
    )


def remote_name(context: Context, project: Project) -> str:
    """Return the project's name in the cloud: the template's result, which part it is, and the marker in brackets."""
    root = context.root(project)
    assert root is not None
    name = root.project.name.format(
        folder=printable(project.folder),
        root=project.root,
        date=dt.datetime.now(dt.UTC).date().isoformat(),
    )
    return f"{name[:LONGEST_NAME]}{splitting.title_suffix(project)} [{project.marker}]"


def _intend(context: Context, project: Project, *, restored: bool = False) -> Effect:
    root = context.root(project)
    assert root is not None
    request = {
        "name": remote_name(context, project),
        "fields": dict(root.project.create),
        "marker": project.marker,
        **({"restored": True} if restored else {}),
    }
    return effects.intent(context.journal, project.id, EffectKind.CREATE, State.SETTLED, request=request)


def _record(context: Context, project: Project, effect: Effect, found: CloudProject, learnt: Learnt) -> None:
    reconcile.created(context, effect)
    effects.created(
        context.journal,
        effect,
        learnt,
        remote_id=found.id,
        name=found.name or effect.request["name"],
        bucket=found.bucket,
        prefix=found.prefix,
        page=found.detail_url,
    )
    # Once more: the first note may have been dealt with before the project was there.
    reconcile.created(context, effect)
    log.info("created", project=project.title, remote_id=found.id, learnt=str(learnt))


def _probe(context: Context, effect: Effect) -> Found[CloudProject] | NotDone | CannotTell:
    marker = effect.request["marker"]
    search = context.rest.find_projects(marker, known=views.known_remote_ids(context.journal))
    if search.matches:
        first = min(search.matches, key=lambda match: match.id)
        if len(search.matches) > 1:
            others = ", ".join(str(match.id) for match in search.matches if match.id != first.id)
            effects.note_twins(
                context.journal, effect.project_id, f"empty twins with the marker [{marker}] in the cloud: {others}"
            )
        return Found(_of_its_own(context, effect, context.rest.project(first.id)))
    if search.read_to_end and search.saw_known:
        return NotDone(f"no project with the marker [{marker}] is in the cloud's list")
    return CannotTell(f"the list of projects does not say whether one with the marker [{marker}] exists")


def _of_its_own(context: Context, effect: Effect, found: CloudProject) -> CloudProject:
    """Return what was created, unless its place in S3 is none of its own: nothing may be written anywhere else.

    Raises Refused; the creation stays in doubt, and is looked at again when a person retries.
    """
    parts = found.prefix.split("/")
    if not found.bucket or not found.prefix.isprintable() or any(part in {"", ".", ".."} for part in parts):
        why = "which is no place of its own"
    elif effects.is_place_taken(context.journal, found.bucket, found.prefix, but=effect.project_id):
        why = "where another project of this journal lies"
    else:
        return found
    place = printable(f"{found.bucket}/{found.prefix}".encode())
    raise Refused(f"project {found.id}: the service says that it lies at {place}, {why}; nothing is sent there")


def _cannot_tell(context: Context, project: Project, effect: Effect, why: str) -> None:
    ask = context.settings.cloud.create_in_doubt == "hold" or reconcile.may_not_guess(context, effect)
    if ask and project.condition is not Condition.DROPPED:
        hold_in_doubt(context, project, effect, why)
        return
    effects.undone(context.journal, effect, f"{why}; a new one is made, an empty twin may be left and costs nothing")
