"""Every error of the program, as one tree.

    WatcherError
      ConfigError              the configuration cannot be used: all problems at once
      JournalError             the journal cannot be used
        JournalTooNew          written by a newer version of this program
        JournalDiskFails       its disk does not take what is written: read-only, broken
          JournalDiskFull      no room for it
      SourceError              something about a dropped folder or one of its images
        SourceMissing          it is gone
        SourceChanged          it is not what was frozen
        SourceUnreadable       the medium answers with an error
        MediaAbsent            the whole drop directory is away or does not answer
      HostError                this machine: permission, descriptors, a second service
        DiskFull               no room for results or an archive
      RemoteError              PIX4Dengine Cloud or its S3
        NotSent                nothing left this machine
        Unanswered             sent, perhaps applied, no usable answer
        Throttled              429 or S3 SlowDown: not applied, come back later
        Refused                the service said no
          AuthRefused          token or client credentials refused
          CredentialsExpired   S3 credentials too old: renew and replay
          ClockSkewed          S3 says that our clock is off
          NotThere             404: no such project, object or endpoint
          Conflict             409, 412: not in the state that we thought
          NoCredit             the account has not enough credits
          Corrupted            what arrived is not what was frozen

Each error answers three questions: whom does it stop (`scope`), did the thing asked for happen (`happened`), and
what helps (`cure`). Nothing here may hold a secret: texts are shown, logged and journalled.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Scope(StrEnum):
    """Whom an error stops."""

    PROJECT = "project"
    SERVICE = "service"


class Happened(StrEnum):
    """Whether the thing that was asked for was done all the same."""

    NO = "no"
    UNKNOWN = "unknown"


class Cure(StrEnum):
    """What helps against an error."""

    RETRY = "retry"
    WAIT = "wait"
    ASK_FIRST = "ask first"
    PERSON = "person"


class WatcherError(Exception):
    """Any error that the program itself raises; its text is written for the person who runs it."""

    scope: ClassVar[Scope] = Scope.PROJECT
    happened: ClassVar[Happened] = Happened.NO
    cure: ClassVar[Cure] = Cure.PERSON


class ConfigError(WatcherError):
    """The configuration cannot be used; `problems` holds one text per problem, each with its place."""

    scope = Scope.SERVICE

    def __init__(self, problems: list[str]) -> None:
        """Keep all problems and show them one per line."""
        self.problems = problems
        super().__init__("\n".join(problems))


class JournalError(WatcherError):
    """The journal cannot be opened, read or written."""

    scope = Scope.SERVICE


class JournalTooNew(JournalError):
    """The journal was written by a newer version of this program."""


class JournalDiskFails(JournalError):
    """The journal's disk is read-only or broken: what was being written does not count, and may do so later."""

    cure = Cure.WAIT


class JournalDiskFull(JournalDiskFails):
    """No room for the journal: what was being written does not count."""


class SourceError(WatcherError):
    """Something about a dropped folder or one of its images."""

    cure = Cure.RETRY


class SourceMissing(SourceError):
    """An image or folder that was frozen is gone."""

    cure = Cure.PERSON


class SourceChanged(SourceError):
    """An image is not any more what was frozen."""

    cure = Cure.PERSON


class SourceUnreadable(SourceError):
    """The medium answers with an error (EIO, EACCES, ENOTCONN)."""

    cure = Cure.WAIT


class MediaAbsent(SourceError):
    """The drop directory is away: not mounted, replaced by an empty mount point, or not answering."""

    cure = Cure.WAIT


class HostError(WatcherError):
    """This machine cannot do what is needed."""

    scope = Scope.SERVICE


class DiskFull(HostError):
    """No room for results or in an archive."""

    scope = Scope.PROJECT
    cure = Cure.WAIT


class RemoteError(WatcherError):
    """PIX4Dengine Cloud or its S3 did not do what was asked.

    `status` is the HTTP status where there was one; `words` are the service's own words, shortened. `is_page`: they
    came as a page for people, which the service itself may have given, or what lies between.
    """

    cure = Cure.RETRY

    def __init__(self, text: str, *, status: int | None = None, words: str = "") -> None:
        """Keep what the service said beside our own sentence."""
        self.status = status
        self.words = words
        self.is_page = False
        super().__init__(text)


class NotSent(RemoteError):
    """The request never left this machine: no name, no route, no connection, no TLS."""

    scope = Scope.SERVICE


class Unanswered(RemoteError):
    """The request may have been applied, but no usable answer came: broken connection, time-out, 5xx, nonsense."""

    scope = Scope.SERVICE
    happened = Happened.UNKNOWN
    cure = Cure.ASK_FIRST


class Throttled(RemoteError):
    """Not applied; the service asks for patience. `retry_after` is in seconds where the service named it."""

    cure = Cure.WAIT

    def __init__(
        self, text: str, *, status: int | None = None, words: str = "", retry_after: float | None = None
    ) -> None:
        """Keep the pause that the service asked for."""
        self.retry_after = retry_after
        super().__init__(text, status=status, words=words)


class Refused(RemoteError):
    """The service said no, in `words`."""

    cure = Cure.PERSON


class AuthRefused(Refused):
    """The client credentials or the token are refused."""

    scope = Scope.SERVICE


class CredentialsExpired(Refused):
    """The S3 credentials are too old or unknown: renew them and send again."""

    cure = Cure.RETRY


class ClockSkewed(Refused):
    """S3 refuses the signature's date: this machine's clock is off."""

    cure = Cure.RETRY


class NotThere(Refused):
    """No such project, object or endpoint."""


class Conflict(Refused):
    """The object or project is not in the state that we thought."""


class NoCredit(Refused):
    """The account has not enough credits."""

    cure = Cure.WAIT


class Corrupted(Refused):
    """What arrived is not what was frozen: the service compared the hashes and refused, or answered another ETag."""

    cure = Cure.RETRY
