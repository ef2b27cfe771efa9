"""Waits on the monotonic clock of this process: no jump of the wall clock shortens or stretches them.

A wait that was under way when the process ended begins again with the process, which is never shorter than needed.
"""

from __future__ import annotations

import random
import threading
import time


class Waits:
    """Remembers since when each thing is waited for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._born = time.monotonic()
        self._since: dict[tuple[str, int], float] = {}

    def begin(self, kind: str, number: int) -> None:
        """Start the wait now, or start it again."""
        with self._lock:
            self._since[kind, number] = time.monotonic()

    def left(self, kind: str, number: int, length: float) -> float:
        """Return how many seconds of the wait are left; one that this process did not begin began with the process."""
        with self._lock:
            since = self._since.get((kind, number), self._born)
        return max(0.0, since + length - time.monotonic())

    def begun(self, kind: str, number: int) -> bool:
        """Say whether this process began the wait."""
        with self._lock:
            return (kind, number) in self._since

    def age(self, kind: str, number: int) -> float:
        """Return for how many seconds this process has waited; the first question begins the wait."""
        with self._lock:
            now = time.monotonic()
            return now - self._since.setdefault((kind, number), now)

    def end(self, kind: str, number: int) -> None:
        """Forget the wait."""
        with self._lock:
            self._since.pop((kind, number), None)


def backoff(tries: int, base: float, most: float) -> float:
    """Return the pause before the next try in seconds: doubling from `base`, with full jitter in its upper half."""
    pause = min(most, base * 2.0 ** min(tries, 30))
    return pause * (0.5 + random.random() / 2)
