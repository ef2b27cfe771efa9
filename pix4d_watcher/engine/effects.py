"""Nothing twice: each effect is a row, written before the call and closed when its outcome is known.

`once` is the only way in which the engine creates, registers or starts. After a lost answer the effect stays open, is
left alone for `doubt_wait`, and then the service is asked whether it happened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

from pix4d_watcher.core.errors import (
    AuthRefused,
    ClockSkewed,
    NoCredit,
    NotSent,
    NotThere,
    Refused,
    RemoteError,
    Throttled,
)
from pix4d_watcher.core.model import Condition, HoldCode, Learnt
from pix4d_watcher.journal import effects, projects, views

if TYPE_CHECKING:
    from collections.abc import Callable

    from pix4d_watcher.engine.context import Context
    from pix4d_watcher.journal.records import Effect, Project

log = structlog.get_logger()
Answer = TypeVar("Answer")

SURELY_NOT_DONE = (NotSent, Throttled, AuthRefused, ClockSkewed)
"""Errors after which the service surely did nothing: it may be asked again at once."""


@dataclass(frozen=True, slots=True)
class Found(Generic[Answer]):
    """The probe saw that it happened."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class NotDone:
    """The probe saw that it surely did not happen."""

    why: str


@dataclass(frozen=True, slots=True)
class CannotTell:
    """The probe could not tell."""

    why: str


@dataclass(frozen=True, slots=True)
class Asking(Generic[Answer]):
    """How one kind of effect is intended, done, looked for and recorded.

    `intend` writes the intent and may return None when there is nothing to ask. `cannot_tell` decides what happens
    when a whole `doubt_wait` ended without knowledge. A refusal with a status in `passes` is closed as undone and
    raised, because the caller knows a better way to ask.
    """

    intend: Callable[[], Effect | None]
    act: Callable[[Effect], Answer]
    record: Callable[[Effect, Answer, Learnt], None]
    probe: Callable[[Effect], Found[Answer] | NotDone | CannotTell]
    cannot_tell: Callable[[Effect, str], None]
    passes: frozenset[int] = frozenset()


def once(context: Context, project: Project, asking: Asking[Answer]) -> bool:
    """Take an effect one step further: ask for it, or learn what became of it; False when there is nothing to ask.

    Raises RemoteError when nothing could be asked or learnt just now; the journal then says what to do next time.
    """
    effect = views.open_effect(context.journal, project.id)
    if effect is not None:
        _resolve(context, project, asking, effect)
        return True
    effect = asking.intend()
    if effect is None:
        return False
    _ask(context, project, asking, effect)
    return True


def _ask(context: Context, project: Project, asking: Asking[Answer], effect: Effect) -> None:
    # From here the request may be on the wire, whatever this process sees of it.
    context.waits.begin("effect", effect.id)
    try:
        answer = asking.act(effect)
    except SURELY_NOT_DONE as error:
        effects.undone(context.journal, effect, str(error))
        context.waits.end("effect", effect.id)
        raise
    except Refused as error:
        _refused(context, project, asking, effect, error)
    except RemoteError as error:
        log.warning("answer lost", project=project.title, effect=str(effect.kind), reason=str(error))
        _wait_for_outcome(context, project, effect, context.settings.advanced.doubt_wait)
        # Whether the link is down is asked after the wait is written, so that a crash here changes nothing.
        context.world.is_to_blame(error)
    else:
        asking.record(effect, answer, Learnt.REPLY)
        context.waits.end("effect", effect.id)


def _refused(context: Context, project: Project, asking: Asking[Answer], effect: Effect, error: Refused) -> None:
    """Probe before believing a refusal: a second call may be refused because the first one was applied."""
    if error.is_page:
        # Perhaps it stands in the place of another answer; the wait is written first, as after a lost one.
        _wait_for_outcome(context, project, effect, context.settings.advanced.doubt_wait)
        if context.world.is_to_blame(error):
            return
    verdict = asking.probe(effect)
    if isinstance(verdict, Found):
        asking.record(effect, verdict.answer, Learnt.PROBE)
        context.waits.end("effect", effect.id)
        return
    effects.undone(context.journal, effect, str(error))
    context.waits.end("effect", effect.id)
    if error.status in asking.passes:
        raise error
    hold_refused(context, project, error)


def hold_refused(context: Context, project: Project, error: Refused) -> None:
    """Hold a project with the service's own words; missing credits are looked at again by themselves."""
    code = HoldCode.NO_CREDIT if isinstance(error, NoCredit) else HoldCode.CLOUD_REFUSED
    again = context.after(context.settings.advanced.retry_max)
    projects.hold(context.journal, project.id, code, str(error), due_at=again)


def hold_gone(context: Context, project: Project, error: NotThere) -> None:
    """Hold a project that somebody deleted in the cloud; it is never made anew by itself.

    One that was given up is held by nothing any more: there just an open effect came to nothing.
    """
    text = f"the project is not in the cloud any more: {error}"
    effect = views.open_effect(context.journal, project.id) if project.condition is Condition.DROPPED else None
    if effect is not None:
        effects.undone(context.journal, effect, text)
        return
    projects.hold(context.journal, project.id, HoldCode.CLOUD_REFUSED, text)


def _resolve(context: Context, project: Project, asking: Asking[Answer], effect: Effect) -> None:
    left = context.waits.left("effect", effect.id, context.settings.advanced.doubt_wait)
    if left > 0:
        _wait_for_outcome(context, project, effect, left)
        return
    verdict = asking.probe(effect)
    if isinstance(verdict, CannotTell):
        log.warning("in doubt", project=project.title, effect=str(effect.kind), reason=verdict.why)
        asking.cannot_tell(effect, verdict.why)
        return
    if isinstance(verdict, Found):
        asking.record(effect, verdict.answer, Learnt.PROBE)
    else:
        effects.undone(context.journal, effect, verdict.why)
    context.waits.end("effect", effect.id)


def _wait_for_outcome(context: Context, project: Project, effect: Effect, seconds: float) -> None:
    why = f"the answer to {effect.kind} was lost; whether it happened is looked up after a wait"
    projects.waiting(context.journal, project.id, why, due_at=context.after(seconds))


def hold_in_doubt(context: Context, project: Project, effect: Effect, why: str) -> None:
    """Hold a project because only a person can tell whether the effect happened."""
    projects.hold(context.journal, project.id, HoldCode.IN_DOUBT, f"{effect.kind}: {why}")
