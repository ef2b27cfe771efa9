"""The crash points inside the service: each commit of the journal has a name, and at one of them the process dies.

Loaded by the nursery into the service's process, before its `main` runs, where a test asks for it (see `Child`). It
listens to SQLAlchemy's public events and changes nothing. Environment variables say what to do: CRASH_TRACE names the
file to which every commit that is reached is appended, CRASH_AT the one at which SIGKILL comes, empty for none.

A commit is named by the journal's verb that makes it and by how often it was made in this process, like
`effects.intent#1`, so that the name stays the same however the threads interleave.
"""

import os
import signal
import sys
import threading
import time
from collections import Counter

from sqlalchemy import Engine, Pool, event

SHARED = ("database.py", "change.py")
"""Modules of the journal that commit for others."""


class Points:
    """Counts the commits of this process, tells of each, and ends the process at one of them."""

    def __init__(self, trace, wanted):
        self._trace = os.open(trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._wanted = wanted
        self._lock = threading.Lock()
        self._counts = Counter()
        self._mine = threading.local()

    def before(self, _connection):
        """Note that a transaction is about to be committed."""
        verb = verb_of(sys._getframe(1))
        if verb is not None:
            with self._lock:
                self._counts[verb] += 1
                self._mine.name = f"{verb}#{self._counts[verb]}"
            self._reached(f"before {self._mine.name}")

    def after(self, _connection, _record):
        """Note that a connection comes back: if this thread was committing, it is done and nobody knows it yet."""
        name = self._mine.__dict__.pop("name", None)
        if name is not None:
            self._reached(f"after {name}")

    def _reached(self, point):
        os.write(self._trace, f"{time.monotonic_ns()} {point}\n".encode())
        if point == self._wanted:
            os.kill(os.getpid(), signal.SIGKILL)


def verb_of(frame):
    """Name the verb whose write transaction is being committed; None for a read."""
    verb, writes = None, False
    while frame is not None:
        place, _, file = frame.f_code.co_filename.rpartition("/")
        if place.endswith("/journal"):
            function = frame.f_code.co_name
            if file == "database.py" and function == "read":
                return None
            writes = writes or (file == "database.py" and function == "write")
            if file not in SHARED or (verb is None and function != "write"):
                verb = f"{file.removesuffix('.py')}.{function}"
            if verb == "service.put":
                verb += f" {frame.f_locals['name']}"
            if file not in SHARED:
                break
        frame = frame.f_back
    return verb if writes else None


def install():
    """Listen from now on to every engine of this process."""
    points = Points(os.environ["CRASH_TRACE"], os.environ.get("CRASH_AT", ""))
    event.listen(Engine, "commit", points.before)
    event.listen(Pool, "checkin", points.after)


install()
