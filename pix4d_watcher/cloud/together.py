"""Threads that wait for the same question share its failure: else each would ask again, one after the other.

With a service that accepts connections and stays silent the tenth of ten threads would wait ten times as long as the
first, and count as hung. Knows nothing of what is asked.
"""

import threading
import time
from collections.abc import Callable
from copy import copy
from typing import TypeVar

from pix4d_watcher.core.errors import RemoteError

Answer = TypeVar("Answer")


class Together:
    """The last failure of one question. Only one thread asks at a time, which is the caller's business."""

    def __init__(self) -> None:
        """Know of no failure."""
        self._own = threading.local()
        self._failed: tuple[float, RemoteError] | None = None

    def come(self) -> None:
        """Note that this thread needs the answer from now on; called before it waits for others."""
        self._own.since = time.monotonic()

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """Ask, unless the question failed for another thread since this one came: then raise that failure."""
        if self._failed is not None and self._failed[0] > self._own.since:
            raise copy(self._failed[1])
        try:
            return question()
        except RemoteError as error:
            # A copy, without the frames of the thread that raised it.
            self._failed = (time.monotonic(), copy(error))
            raise
