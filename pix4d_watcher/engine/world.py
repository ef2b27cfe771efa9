"""Tells errors of the world (no link, credentials refused) from errors of one project or image.

An error of the world pauses the whole service, uses up nobody's tries, and ends by itself. An error counts as one of
the world only when something else fails too: a question to the REST plane, or a second object. Otherwise it is counted
against its project or image, such as a firewall that resets on the bytes of one image. Too little room for the journal,
which is measured elsewhere, pauses the service in the same way.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.core.errors import AuthRefused, NotSent, RemoteError, Unanswered

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()

REDIAL = 1.0
"""Seconds between two looks while a link is freshly down: the first minute decides whether a pilot waits."""

REDIAL_MOST = 15.0
"""Seconds between two looks when the link has been down for long."""

AUTH_AGAIN = 60.0
"""Seconds between two looks after the client credentials were refused: a person has to act."""

SECOND_OBJECT = 60.0
"""Seconds within which a second failing object makes it the world's fault."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Why the service is paused: `kind` is disk_full, network, storage or auth; `since` is wall-clock seconds."""

    kind: str
    text: str
    since: float


class World:
    """The state of the world as the service sees it."""

    def __init__(self, ping: Callable[[], None]) -> None:
        self._ping = ping
        self._lock = threading.Lock()
        self._pause: Pause | None = None
        self._no_room: Pause | None = None
        self._looks = 0
        self._next_look = 0.0
        self._storage_trouble: dict[str, float] = {}
        self._storage_suspected = False
        self._storage_since = 0.0
        self.refused_at_start = False
        self.proven = False

    @property
    def pause(self) -> Pause | None:
        """Why the service is paused, None while it works; a full disk before anything that is wrong with the cloud."""
        return self._no_room or self._pause

    @property
    def is_disk_full(self) -> bool:
        """Whether the journal has too little room: then what is found is not written down either."""
        return self._no_room is not None

    def room(self, shortage: str) -> bool:
        """Take note of the room for the journal, `shortage` says what is wrong; True when a pause for it ended."""
        pause = self._no_room
        if shortage and pause is None:
            self._no_room = Pause("disk_full", shortage, time.time())
            log.warning("paused", kind="disk_full", reason=shortage)
        elif not shortage and pause is not None:
            self._no_room = None
            _tell_end(pause)
            return True
        return False

    def is_to_blame(self, error: RemoteError) -> bool:
        """Judge an error of the REST plane; True when the service is paused for it, False when the project has it.

        A refusal that came as a page may be a firewall's: then it is not the service that refuses.
        """
        if isinstance(error, AuthRefused):
            self._begin("auth", str(error))
            return True
        if not (isinstance(error, (NotSent, Unanswered)) or error.is_page):
            return False
        if self._pause is not None:
            return True
        try:
            self._ping()
        except AuthRefused as refused:
            self._begin("auth", str(refused))
            return True
        except RemoteError:
            self._begin("network", str(error))
            return True
        return False

    def is_to_blame_for_object(
        self, key: str, error: RemoteError, *, only: Callable[[set[str]], bool] | None = None
    ) -> bool:
        """Judge an error of the data plane: the world's when REST fails too, or when a second object fails as well.

        After a pause for the storage the first failure is the world's again, until an object went through: else every
        look in a long outage would use up a try of some image. `only` is asked whether it is only the objects with
        these keys, all that failed of late; not where the storage says itself that it is broken.
        """
        if self.is_to_blame(error):
            return True
        if not isinstance(error, (NotSent, Unanswered)):
            return False
        now = time.monotonic()
        with self._lock:
            recent = {name: at for name, at in self._storage_trouble.items() if now - at < SECOND_OBJECT}
            recent[key] = now
            self._storage_trouble = recent
        if len(recent) < 2 and not self._storage_suspected:
            return False
        if (error.status or 0) < 500 and only is not None and only(set(recent)):
            return False
        self._begin("storage", str(error))
        return True

    def works(self) -> None:
        """Note that an object, or a part of one, went through: the data plane works."""
        with self._lock:
            self._storage_trouble.clear()
            self._storage_suspected = False
            self._looks = 0

    def look_again(self) -> bool:
        """Look whether the world is well again, if it is time to; True when the pause ended."""
        pause = self._pause
        if pause is None or time.monotonic() < self._next_look:
            return False
        try:
            self._ping()
        except AuthRefused as refused:
            self._turn(pause, "auth", str(refused))
            return False
        except RemoteError as error:
            self._turn(pause, "network" if pause.kind == "auth" else pause.kind, str(error))
            return False
        # The storage is not asked by itself: the first upload after the pause is the question.
        self._pause = None
        with self._lock:
            if pause.kind != "storage":
                self._storage_trouble.clear()
                self._looks = 0
        _tell_end(pause)
        return True

    def until_look(self) -> float:
        """Return the seconds until the next look; endless where nothing is wrong with the cloud."""
        return max(0.0, self._next_look - time.monotonic()) if self._pause is not None else float("inf")

    def _begin(self, kind: str, text: str) -> None:
        with self._lock:
            if self._pause is not None:
                return
            now = time.time()
            # The storage is tried by uploads in between: it is away since the first that failed.
            if not self._storage_suspected:
                self._storage_since = now
            self._storage_suspected = kind == "storage"
            self._pause = Pause(kind, text, self._storage_since if self._storage_suspected else now)
            if kind == "auth" and not self.proven:
                self.refused_at_start = True
        self._later(self._pause)
        log.warning("paused", kind=kind, reason=text)

    def _turn(self, pause: Pause, kind: str, text: str) -> None:
        """Go on waiting, for something else where that has changed meanwhile."""
        if kind == pause.kind:
            self._later(pause)
            return
        self._pause = None
        self._begin(kind, text)

    def _later(self, pause: Pause) -> None:
        with self._lock:
            self._looks += 1
            wait = REDIAL if self._looks <= 60 or pause.kind == "storage" else REDIAL_MOST
            if pause.kind == "storage":
                wait = min(REDIAL_MOST, REDIAL * 2.0 ** min(self._looks - 1, 10))
            if pause.kind == "auth":
                wait = AUTH_AGAIN
            self._next_look = time.monotonic() + wait


def _tell_end(pause: Pause) -> None:
    log.info("going on", after=pause.kind, paused_for=round(max(0.0, time.time() - pause.since)))
