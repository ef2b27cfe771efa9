"""What the engine's parts share. Built once by `service`, which alone knows how the parts are made."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from pix4d_watcher.engine.beats import Beats, Wake
from pix4d_watcher.engine.media import Media
from pix4d_watcher.engine.overrides import effective
from pix4d_watcher.engine.papers import Receipts
from pix4d_watcher.engine.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from pix4d_watcher.cloud.answers import S3Grant
    from pix4d_watcher.cloud.bucket import Bucket
    from pix4d_watcher.cloud.credentials import Credentials
    from pix4d_watcher.cloud.rest import Rest
    from pix4d_watcher.cloud.wire import Line
    from pix4d_watcher.config import RootSettings, Settings
    from pix4d_watcher.engine.world import World
    from pix4d_watcher.journal.database import Journal
    from pix4d_watcher.journal.records import Project

log = structlog.get_logger()


@dataclass
class Context:
    """The journal, the cloud, the settings, and what the loops tell each other."""

    settings: Settings
    journal: Journal
    rest: Rest
    buckets: Buckets
    world: World
    wake_scanner: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    beats: Beats = field(default_factory=Beats)
    waits: Waits = field(default_factory=Waits)
    wake_steps: Wake = field(default_factory=Wake)
    wake_uploads: Wake = field(default_factory=Wake)
    receipts: Receipts = field(default_factory=Receipts)
    paused: bool = False  # a person paused everything; the dispatcher keeps it in step with the journal
    restored: bool = False  # the journal was restored and not compared with the cloud yet: nothing is sent
    own_parts: set[int] = field(default_factory=set)  # outputs of which this process wrote what is there of them
    throttled: Counter[int] = field(default_factory=Counter)  # by project: times in a row that patience was asked for
    batch_sizes: dict[int, int] = field(default_factory=dict)
    unlike: dict[int, str] = field(default_factory=dict)  # by result: the MD5 of bytes that were not as its ETag says
    media: Media = field(init=False)

    def __post_init__(self) -> None:
        """Have stays at files count as signs of life."""
        self.media = Media(self.beats)

    @property
    def patience(self) -> float:
        """Seconds that a loop may go without a sign of life: a call to the cloud, and what it does by itself.

        Each call is a sign of life. Files have no part in it: `media` judges whoever is at them.
        """
        return 4 * self.settings.advanced.request_timeout + 30.0

    @property
    def hung(self) -> float:
        """Seconds without a sign of life after which a thread that sends or fetches counts as hung.

        The data plane gives up earlier: it is longer than S3 may take for its answers.
        """
        return max(LONGEST_SILENCE, self.patience)

    def root(self, project: Project) -> RootSettings | None:
        """Return the settings of a project's drop directory as its folder's pix4d.yaml changes them.

        None when the drop directory was taken out of the configuration.
        """
        root = next((root for root in self.settings.watch if root.name == project.root), None)
        return root and effective(root, project.overrides)

    def line(self) -> Line:
        """Make a connection to S3 for one thread; it dials when it is first used."""
        from pix4d_watcher.cloud.wire import Line  # noqa: PLC0415  (the idle service needs no data plane)

        return Line()

    @property
    def horizon(self) -> float:
        """How far ahead (seconds) a due time may lie; further means that the wall clock jumped, so it is due now."""
        polls = [root.poll or 0.0 for root in self.settings.watch]
        return max(self.settings.advanced.retry_max, self.settings.advanced.doubt_wait, LONGEST_POLL, *polls) + 60.0

    def after(self, seconds: float) -> float:
        """Return the due time so many seconds from now."""
        return time.time() + seconds


LONGEST_SILENCE = 300.0
"""Seconds that the body of a request may take without a sign of life, however short `request_timeout` is."""

LONGEST_POLL = 600.0
"""Seconds between two questions about a project that processes for hours (PIX4D says up to 48 h)."""

CLOCK_OFF = 60.0
"""Seconds by which the clocks must come to differ more, or less, before it is said again."""


class Buckets:
    """One `Bucket` with its renewing credentials per project, made when first needed and kept."""

    def __init__(self, rest: Rest, settings: Settings) -> None:
        self._rest = rest
        self._settings = settings
        self._lock = threading.Lock()
        self._known: dict[int, tuple[Bucket, Credentials]] = {}
        self._told = 0.0
        self._skew: float | None = None

    def of(self, remote_id: int) -> Bucket:
        """Return the bucket of a project in the cloud."""
        from pix4d_watcher.cloud.bucket import Bucket  # noqa: PLC0415  (the idle service needs no data plane)
        from pix4d_watcher.cloud.credentials import Credentials  # noqa: PLC0415

        with self._lock:
            if remote_id not in self._known:
                ca_file = self._settings.cloud.ca_file
                credentials = Credentials(lambda: self._grant(remote_id))
                bucket = Bucket(
                    credentials,
                    s3_endpoint=self._settings.cloud.s3_endpoint,
                    ca_file=None if ca_file is None else str(ca_file),
                    timeout=self._settings.advanced.request_timeout,
                )
                self._known[remote_id] = (bucket, credentials)
            return self._known[remote_id][0]

    def _grant(self, remote_id: int) -> S3Grant:
        grant = self._rest.s3_grant(remote_id)
        if abs(grant.skew - self._told) >= CLOCK_OFF:
            self._told = grant.skew
            text = "corrected for signing; is the time synchronised on this machine?"
            log.warning("clock differs from the cloud's", seconds=round(grant.skew), text=text)
        return grant

    def vitals(self) -> dict[str, float | None]:
        """Say how far the service's clock is from ours (seconds), as the last credentials showed it."""
        with self._lock:
            known = list(self._known.values())
            self._skew = known[-1][1].skew if known else self._skew
            return {"skew": self._skew}

    def forget(self, remote_id: int) -> None:
        """Let go of the credentials of a finished project."""
        self.vitals()
        with self._lock:
            self._known.pop(remote_id, None)
