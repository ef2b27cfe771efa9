"""Which error ends a command with which exit code, and how it is told: the only place that knows.

0 done; 1 unexpected; 2 usage, an unknown or ambiguous folder, or what does not fit a project; 75 try later;
77 permission or client secret refused; 78 configuration, or a journal of a newer version.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from pix4d_watcher.core.errors import (
    AuthRefused,
    ConfigError,
    Cure,
    HostError,
    JournalError,
    JournalTooNew,
    NotSent,
    Throttled,
    Unanswered,
    WatcherError,
)
from pix4d_watcher.core.model import printable

DONE, UNEXPECTED, USAGE, TRY_LATER, NO_PERMISSION, CONFIGURATION = 0, 1, 2, 75, 77, 78


class Misused(WatcherError):
    """The command does not fit: no such folder, more than one of that name, or nothing there to do."""


def exit_code(error: WatcherError | OSError) -> int:
    """Return the exit code that the contract gives an error."""
    if isinstance(error, Misused):
        return USAGE
    if isinstance(error, ConfigError | JournalTooNew):
        return CONFIGURATION
    if isinstance(error, AuthRefused | PermissionError) or isinstance(error.__cause__, PermissionError):
        return NO_PERMISSION
    if isinstance(error, NotSent | Unanswered | Throttled) or (
        isinstance(error, HostError | JournalError) and error.cure is Cure.WAIT
    ):
        return TRY_LATER
    return UNEXPECTED


def tell(error: WatcherError | OSError) -> int:
    """Write an error to stderr as a person reads it, and return the exit code."""
    if isinstance(error, ConfigError):
        count = len(error.problems)
        text = f"the configuration has {count} problems:\n{error}" if count > 1 else str(error)
    elif isinstance(error, OSError):
        name = (
            error.filename
            if isinstance(error.filename, bytes)
            else str(error.filename).encode(errors="surrogateescape")
        )
        text = f"{printable(name)}: {error.strerror}"
    else:
        text = str(error)
    # On a full disk or a closed pipe nobody reads it; systemd goes by the code.
    with suppress(OSError):
        sys.stderr.write(f"error: {text}\n")
    return exit_code(error)
