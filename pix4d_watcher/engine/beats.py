"""Heartbeats and threads: a loop that hangs or dies is noticed, never papered over."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


class Beats:
    """When each thread last showed that it is alive, on the monotonic clock. A thread speaks only of itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[threading.Thread, tuple[float, float]] = {}

    def beat(self, limit: float) -> None:
        """Say that it is alive; without another beat for `limit` seconds it counts as hung."""
        with self._lock:
            self._last[threading.current_thread()] = (time.monotonic(), limit)

    def again(self) -> None:
        """Say once more that it is alive, unless it rests."""
        with self._lock:
            me = threading.current_thread()
            if me in self._last:
                self._last[me] = (time.monotonic(), self._last[me][1])

    def rest(self) -> None:
        """Say that it has nothing to do and cannot hang."""
        with self._lock:
            self._last.pop(threading.current_thread(), None)

    def late(self, but: Collection[threading.Thread] = ()) -> list[str]:
        """Name the threads that count as hung, leaving out `but`."""
        now = time.monotonic()
        with self._lock:
            return [
                thread.name
                for thread, (last, limit) in self._last.items()
                if now - last > limit and thread not in but and thread.is_alive()
            ]


class Wake:
    """A wake-up for a loop: carries no work, since work lives in the journal."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def call(self) -> None:
        """Have the loop look again now."""
        self._event.set()

    def wait(self, seconds: float) -> None:
        """Wait for a call, at most so long; takes all calls so far."""
        self._event.wait(max(0.0, seconds))
        self._event.clear()


class Replaced(Exception):
    """Ends a thread that stood still at a file for so long that another one has its work; nothing else may catch it."""


class Crew:
    """The threads of the service. The first unexpected error of any of them is kept, and ends the process."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.failure: BaseException | None = None
        self._threads: dict[threading.Thread, Callable[[], None]] = {}

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread until it returns; an error stops the whole service."""
        thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._threads[thread] = work
        thread.start()

    def replace(self, thread: threading.Thread) -> None:
        """Have another thread do the work of one that stands still, and will end by Replaced when it comes back."""
        self.start(thread.name, self._threads[thread])
        self._threads = {one: work for one, work in self._threads.items() if one.is_alive()}

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Replaced:
            return
        except BaseException as error:  # noqa: BLE001  # loop top: an unexpected error ends the process, systemd restarts
            if self.failure is None:
                self.failure = error
            self.stop.set()

    def join(self, seconds: float, but: Callable[[], Collection[threading.Thread]]) -> list[threading.Thread]:
        """Wait for all threads except `but` together, at most so long; returns those that still run."""
        end = time.monotonic() + seconds
        while left := [thread for thread in self._threads if thread.is_alive() and thread not in but()]:
            if time.monotonic() > end:
                return left
            left[0].join(LOOK)
        return []


LOOK = 0.2
"""Seconds between two looks whether a thread that is waited for stands still at a file by now."""
