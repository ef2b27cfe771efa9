"""The dispatcher picks due projects, the workers run one step of one project each.

Queues carry only numbers of projects: the work itself is in the journal, and is read again when its turn comes.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.errors import RemoteError, Throttled
from pix4d_watcher.core.model import State
from pix4d_watcher.engine import reconcile
from pix4d_watcher.engine.steps import step
from pix4d_watcher.engine.waits import backoff
from pix4d_watcher.host.memory import give_back
from pix4d_watcher.journal import service, views

if TYPE_CHECKING:
    from collections.abc import Callable

    from pix4d_watcher.engine.context import Context

log = structlog.get_logger()

TICK = 1.0
"""Seconds between two looks at the journal: what a person does by command is noticed within that time."""

QUIET = 3.0
"""Seconds without an event after which a spell of work is over."""

STEP_WORKERS = 3
"""Steps are short questions to the cloud; a few at a time keep one slow answer from holding up the rest."""

FETCH_WORKERS = 2
"""Downloads take long, so they have workers of their own and never keep others from being started."""

BY_PEOPLE = ("approved", "retry", "resumed", "start", "decided", "again", "skipped")
"""Events of commands after which folders are looked at again."""


class Dispatcher:
    """Hands due projects to the workers, each to one at a time."""

    def __init__(self, context: Context, wake_scanners: Callable[[], None]) -> None:
        self._context = context
        self._wake_scanners = wake_scanners
        self._lock = threading.Lock()
        self._busy: set[int] = set()
        # No SimpleQueue: where several threads wait, its time-out was seen never to come (Python 3.11: the one that
        # loses an item at the last moment waits without end), and then the service does not end by itself in time.
        self.steps: queue.Queue[int] = queue.Queue()
        self.fetches: queue.Queue[int] = queue.Queue()
        self.greeted = False
        self._greetings = 0
        self._next_greeting = 0.0
        self._seen_event = 0
        self._tidy_at: float | None = None

    @property
    def busy(self) -> bool:
        """Whether a step is under way."""
        return bool(self._busy)

    def run(self) -> None:
        """Dispatch until the service stops; the work of one thread."""
        context = self._context
        while not context.stop.is_set():
            context.beats.beat(context.patience)
            self._greet()
            restored = reconcile.is_due(context)
            if restored and self.greeted and context.world.pause is None:
                restored = not reconcile.compare(context)
            context.paused = restored or bool(service.get(context.journal, service.PAUSED_ALL, default=False))
            context.restored = restored  # last, so that what is idle is not judged by half of it
            if context.world.pause and context.world.look_again():
                context.wake_uploads.call()
            if not context.paused and context.world.pause is None:
                self._dispatch()
            self._listen_to_people()
            pause = TICK if context.world.pause is None else min(TICK, context.world.until_look() + 0.05)
            context.wake_steps.wait(pause)

    def _greet(self) -> None:
        """Get a first token, so that wrong client credentials show at the start and not at the first drop."""
        if self.greeted or self._context.world.pause is not None or time.monotonic() < self._next_greeting:
            return
        try:
            self._context.rest.token.value()
        except RemoteError as error:
            if not self._context.world.is_to_blame(error):
                self._greet_later(error)
            return
        self._context.world.proven = True
        self.greeted = True

    def _greet_later(self, error: RemoteError) -> None:
        self._greetings += 1
        asked = error.retry_after if isinstance(error, Throttled) else None
        pause = asked or backoff(self._greetings, 1.0, self._context.settings.advanced.retry_max)
        self._next_greeting = time.monotonic() + pause
        log.warning("no token yet", again_in=round(pause, 1), reason=str(error))

    def _dispatch(self) -> None:
        for number, state in views.due_numbers(self._context.journal, time.time(), self._context.horizon):
            with self._lock:
                if number in self._busy:
                    continue
                self._busy.add(number)
            lane = self.fetches if state is State.PROCESSED else self.steps
            lane.put(number)

    def _listen_to_people(self) -> None:
        newest = views.last_event(self._context.journal)
        if newest == self._seen_event:
            self._tidy()
            return
        self._tidy_at = time.monotonic() + QUIET
        told = views.last_event(self._context.journal, BY_PEOPLE, after=self._seen_event)
        self._seen_event = newest
        if told:
            self._wake_scanners()
            self._context.wake_uploads.call()

    def _tidy(self) -> None:
        """Give memory back once after each spell of work: a large flight leaves holes in the heap."""
        if self._tidy_at is not None and time.monotonic() >= self._tidy_at:
            self._tidy_at = None
            give_back()

    def work(self, lane: queue.Queue[int]) -> None:
        """Run steps until the service stops; the work of one thread."""
        context = self._context
        while not context.stop.is_set():
            try:
                number = lane.get(timeout=TICK)
            except queue.Empty:
                continue
            if lane is self.steps:
                # A download shows its own signs of life, see `fetching`.
                context.beats.beat(context.patience)
            try:
                if not context.paused and context.world.pause is None:
                    self._step(number)
            finally:
                with self._lock:
                    self._busy.discard(number)
                context.beats.rest()
                context.wake_steps.call()

    def _step(self, number: int) -> None:
        """Run a step if it is still due: since it was queued another may have been taken, or a person have come."""
        context = self._context
        for project in views.due(context.journal, time.time(), context.horizon, only=number):
            step(context, project)
