"""What a check finds, and how checks run: side by side, each with its own time limit.

Knows nothing of what is checked. A check that hangs (a dead share, a name server that is silent) becomes a finding.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import (
    AuthRefused,
    ConfigError,
    JournalTooNew,
    NotSent,
    Throttled,
    Unanswered,
    WatcherError,
)
from pix4d_watcher.core.model import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


class Level(StrEnum):
    """How good a finding is: only `fail` keeps something from working."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Cause(StrEnum):
    """What kind of trouble a `fail` is; exit codes are made of it."""

    OTHER = "other"
    CONFIGURATION = "configuration"
    PERMISSION = "permission"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: which check, what was measured, and for what is not ok what it means and what to do."""

    name: str
    level: Level
    text: str
    remedy: str = ""
    cause: Cause = Cause.OTHER


@dataclass(frozen=True, slots=True)
class Check:
    """A check: `look` yields its findings; `limit` is in seconds for all of it, `hangs` the remedy where it passes."""

    name: str
    look: Callable[[], Iterable[Finding]]
    limit: float
    hangs: str


def ok(name: str, text: str) -> Finding:
    """Return a finding that needs nobody."""
    return Finding(name, Level.OK, text)


def warn(name: str, text: str, remedy: str) -> Finding:
    """Return a finding that deserves a look, while things work."""
    return Finding(name, Level.WARN, text, remedy)


def fail(name: str, text: str, remedy: str, cause: Cause = Cause.OTHER) -> Finding:
    """Return a finding that keeps something from working."""
    return Finding(name, Level.FAIL, text, remedy, cause)


def failed(name: str, error: WatcherError | OSError, remedy: str) -> Finding:
    """Return the finding for an error of ours or of the system."""
    return fail(name, said(error), remedy, cause_of(error))


def said(error: WatcherError | OSError) -> str:
    """Return the words of an error, for people, with the name of its file where it has one."""
    if isinstance(error, WatcherError):
        return str(error)
    words = error.strerror or type(error).__name__
    if error.filename is None:
        return words
    name = error.filename if isinstance(error.filename, bytes) else str(error.filename).encode(errors="surrogateescape")
    return f"{printable(name)}: {words}"


def cause_of(error: WatcherError | OSError) -> Cause:
    """Say what kind of trouble an error is."""
    if isinstance(error, ConfigError | JournalTooNew):
        return Cause.CONFIGURATION
    if isinstance(error, AuthRefused | PermissionError) or isinstance(error.__cause__, PermissionError):
        return Cause.PERMISSION
    return Cause.UNREACHABLE if isinstance(error, NotSent | Unanswered | Throttled) else Cause.OTHER


def run(checks: Sequence[Check]) -> Iterator[Finding]:
    """Run all checks side by side and yield what they find, in their order; a defect of ours passes."""
    running = [_Running(check) for check in checks]
    for one in running:
        yield from one.findings()


def hidden(findings: Iterable[Finding], secret: str) -> Iterator[Finding]:
    """Take a secret out of all texts, whatever foreign words it came in: the last of several guards."""
    for finding in findings:
        if secret and (secret in finding.text or secret in finding.remedy):
            finding = replace(  # noqa: PLW2901
                finding, text=finding.text.replace(secret, "***"), remedy=finding.remedy.replace(secret, "***")
            )
        yield finding


class _Running:
    """A check in a thread of its own, which is left behind where it hangs: the process ends without it."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._found: list[Finding] = []
        self._end = time.monotonic() + check.limit
        self._whole = False
        self._thread = threading.Thread(target=self._look, name=f"check {check.name}", daemon=True)
        self._thread.start()

    def findings(self) -> list[Finding]:
        """Wait for the check's end or its limit, and give what it found until then."""
        self._thread.join(max(0.0, self._end - time.monotonic()))
        name, found = self._check.name, list(self._found)
        if self._thread.is_alive():
            text = f"no answer within {self._check.limit:.0f} s"
            return [*found, fail(name, text, self._check.hangs, Cause.UNREACHABLE)]
        if not self._whole:  # the thread has written a traceback
            return [*found, fail(name, "this check broke off by a defect of pix4d-watcher", "report what it wrote")]
        return found

    def _look(self) -> None:
        try:
            self._found.extend(self._check.look())
        except (WatcherError, OSError) as error:
            self._found.append(failed(self._check.name, error, self._check.hangs))
        self._whole = True
