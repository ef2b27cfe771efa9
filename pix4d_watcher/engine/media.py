"""Who is at the files of which medium just now, and which medium does not answer.

A call to a disk or share that hangs cannot be cut short: the thread that made it stands still until the medium answers,
if ever. So whoever goes to files says so here. The supervision gives up a thread that stands still and has another one
do its work; until the last of them came back nobody else goes to that medium, so that it takes no more threads than had
gone there before that was known. Knows neither files nor what a project's states mean.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import MediaAbsent
from pix4d_watcher.core.model import printable
from pix4d_watcher.engine.beats import Replaced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pix4d_watcher.engine.beats import Beats

TICK = 0.5
"""Seconds between two looks of the supervision."""

HANGS = 15.0
"""Seconds that a thread stands still at a file until its medium counts as away.

A disk that slept answers sooner, and S3 ends a body of which nothing comes for 20 s: until then a read that hangs is no
trouble of the network. What is wrongly taken for away goes on by itself as soon as it answers.
"""


WRITES = 300.0
"""Seconds for whoever writes: to flush much to a slow disk or a far server is one long wait, and what is written can
wait.
"""


@dataclass(eq=False)
class Touch:
    """One thread at the files of one medium, for one project or none.

    `stays`: the thread is the medium's own and is not replaced. `alone`: only one such thread at a time, at any medium.
    `patience` is how many seconds it may stand still. `first` to do so there, of those that did for too long.
    """

    thread: threading.Thread
    place: str
    project_id: int | None
    stays: bool
    alone: bool
    patience: float
    ran: bytes | None = None
    still: int = 0
    given_up: bool = False
    first: bool = False


class Media:
    """The media: a drop directory by its name, anything else by its path."""

    def __init__(self, beats: Beats) -> None:
        self._beats = beats
        self._left = threading.Condition()
        self._touches: dict[threading.Thread, Touch] = {}

    @contextmanager
    def at(
        self,
        place: str,
        project_id: int | None = None,
        *,
        stays: bool = False,
        anyway: bool = False,
        alone: bool = False,
        patience: float = HANGS,
    ) -> Iterator[None]:
        """Go to the files of a medium. Raises MediaAbsent at once while it does not answer to others, but for `anyway`.

        `alone` waits for others that are alone at any medium; one that was given up keeps nobody waiting. A thread that
        was given up inside ends by Replaced where it leaves; one that `stays` gets MediaAbsent then. Going to a medium
        inside of a medium changes nothing.
        """
        me = threading.current_thread()
        if me in self._touches:
            yield
            return
        with self._left:
            while alone and any(other.alone and not other.given_up for other in self._touches.values()):
                self._left.wait()
            if not anyway and self._hangs(place):
                raise MediaAbsent(silent(place))
            self._touches[me] = Touch(me, place, project_id, stays, alone, patience)
        try:
            yield
        finally:
            with self._left:
                touch = self._touches.pop(me)
                self._left.notify_all()
            self._beats.again()
            _end(touch)

    def check(self) -> None:
        """End this thread's stay where it was given up meanwhile, as leaving would."""
        touch = self._touches.get(threading.current_thread())
        if touch is not None:
            _end(touch)

    def look(self) -> list[Touch]:
        """Give up the threads that stood still for too long, and return those; asked every TICK.

        Looks are counted and no clock is asked: a machine or process that was halted itself blames no medium.
        """
        with self._left:
            found = [touch for touch in self._touches.values() if not touch.given_up and _stands_still(touch)]
            for touch in found:
                touch.first = not self._hangs(touch.place)
                touch.given_up = True
            self._left.notify_all()
        return found

    def busy(self) -> set[threading.Thread]:
        """Return the threads that are at files now: judged here, and not by their heartbeat."""
        with self._left:
            return set(self._touches)

    def given_up(self) -> set[threading.Thread]:
        """Return the threads that stand still, and have another one in their place."""
        with self._left:
            return {thread for thread, touch in self._touches.items() if touch.given_up}

    def _hangs(self, place: str) -> bool:
        return any(touch.given_up and touch.place == place for touch in self._touches.values())


def silent(place: str) -> str:
    """Say what it means that a medium does not answer."""
    shown = printable(os.fsencode(place)) if place.startswith("/") else f"the drop directory {place}"
    return (
        f"{shown} does not answer: its disk or network share hangs. Nothing is lost; everything else goes on, and this "
        "does by itself when it answers again"
    )


def _end(touch: Touch) -> None:
    if touch.given_up:
        raise MediaAbsent(silent(touch.place)) if touch.stays else Replaced(touch.thread.name)


def _stands_still(touch: Touch) -> bool:
    """Ask the kernel whether the thread ran at all since the last look: reading on, however slowly, it would have."""
    ran = _ran(touch.thread)
    touch.still = touch.still + 1 if ran == touch.ran else 0
    touch.ran = ran
    return touch.still * TICK >= touch.patience


def _ran(thread: threading.Thread) -> bytes | None:
    """Return how long and how often a thread ran until now; None where the kernel does not count that."""
    try:
        return Path(f"/proc/self/task/{thread.native_id}/schedstat").read_bytes()
    except OSError:
        return None
