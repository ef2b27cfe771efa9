"""How fast the uploads go, and how much of what is under way has been handed to the network."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pix4d_watcher.journal.records import Image

WINDOW = 15.0
"""Seconds over which the throughput is averaged: long enough to be steady, short enough to show a lost link."""

STEADY = 4.0
"""Seconds without a pause after which a throughput counts as measured; the first second only fills buffers."""


class Meter:
    """Counts bytes as they leave."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: deque[tuple[int, int]] = deque()
        self._under_way: dict[int, tuple[int, int]] = {}

    def sent(self, image: Image, count: int) -> None:
        """Note `count` more bytes of an image."""
        second = int(time.monotonic())
        with self._lock:
            project, before = self._under_way.get(image.id, (image.project_id, 0))
            self._under_way[image.id] = (project, min(image.size, before + count))
            if self._seconds and self._seconds[-1][0] == second:
                count += self._seconds.pop()[1]
            self._seconds.append((second, count))

    def end(self, image_id: int) -> None:
        """Forget what was under way of an image."""
        with self._lock:
            self._under_way.pop(image_id, None)

    def throughput(self) -> float:
        """Return the bytes per second of the last seconds."""
        oldest = time.monotonic() - WINDOW
        with self._lock:
            while self._seconds and self._seconds[0][0] < oldest:
                self._seconds.popleft()
            return sum(count for _second, count in self._seconds) / WINDOW

    def steady(self) -> float | None:
        """Return the bytes per second of an upload that goes on without a pause for long enough, else None."""
        with self._lock:
            seconds = list(self._seconds)
        if not seconds or time.monotonic() - seconds[-1][0] > 2:
            return None
        run = len(seconds) - 1
        while run > 0 and seconds[run][0] - seconds[run - 1][0] <= 2:
            run -= 1
        # The first second and the last one are not whole.
        span = seconds[-1][0] - seconds[run][0] - 1
        return sum(count for _second, count in seconds[run + 1 : -1]) / span if span >= STEADY else None

    def under_way(self) -> dict[int, int]:
        """Return the bytes under way by project."""
        sums: dict[int, int] = {}
        with self._lock:
            for project, count in self._under_way.values():
                sums[project] = sums.get(project, 0) + count
        return sums
