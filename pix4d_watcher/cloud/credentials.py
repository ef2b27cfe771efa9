"""S3 credentials of one project that renew themselves, and the service's clock as measured with them.

Renewal is botocore's `RefreshableCredentials`. botocore is imported with the first credentials: an idle service does
without its 25 MiB. Expiry runs on the monotonic clock from the lifetime that the service named, never on the wall
clock.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pix4d_watcher.cloud.answers import S3Grant
from pix4d_watcher.cloud.together import Together

if TYPE_CHECKING:
    from botocore.credentials import RefreshableCredentials

_BIRTH = datetime(2000, 1, 1, tzinfo=UTC)
_LIFE = timedelta(hours=1)
"""botocore renews when 15 minutes are left, whatever the lifetime; shorter ones would never be used. So the clock that
it sees here shows the used share of the lifetime, stretched to one hour: renewal begins at 75 % of any lifetime, 2
seconds or 12 hours."""

_INSISTS = 60
"""From 59 of these 60 minutes on a failing renewal is an error; before, the old credentials do."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A grant and when it came, in seconds of the monotonic clock."""

    grant: S3Grant
    since: float


class Credentials:
    """The credentials of one project, shared by all its uploaders; `fetch` asks the service for a new grant."""

    def __init__(self, fetch: Callable[[], S3Grant]) -> None:
        """Fetch nothing yet."""
        self._fetch = fetch
        self._lock = threading.Lock()
        self._together = Together()
        self._held: _Held | None = None
        self._renewing: RefreshableCredentials | None = None
        self._skew = 0.0

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Credentials(skew={self._skew:.0f})"

    @property
    def skew(self) -> float:
        """The service's clock minus ours, in seconds; 0 until the first grant."""
        return self._skew

    def current(self) -> S3Grant:
        """Return a grant that is good now, fetching one where needed; raises what `fetch` raises.

        While the old one still holds, a failing renewal is no error; one thread renews, the others go on. Those that
        wait for it share its failure.
        """
        self._together.come()
        with self._lock:
            renewing = self._renewing or self._begin()
        keys = renewing.get_frozen_credentials()
        held = self._held
        assert held is not None
        assert keys.access_key is not None
        assert keys.secret_key is not None
        # another thread may be between fetching a grant and botocore's taking it over: keys must not be mixed
        return replace(
            held.grant, access_key=keys.access_key, secret_key=keys.secret_key, session_token=keys.token or ""
        )

    def renew(self, refused_access_key: str) -> None:
        """Fetch new credentials, unless another thread has replaced the refused ones already."""
        self._together.come()
        with self._lock:
            if self._held is None or self._held.grant.access_key == refused_access_key:
                self._begin()

    def correct(self, skew: float) -> None:
        """Take over the clock difference (seconds) that S3 itself showed."""
        self._skew = skew

    def now(self) -> datetime:
        """Return the service's time, for signing."""
        return datetime.now(UTC) + timedelta(seconds=self._skew)

    def _begin(self) -> "RefreshableCredentials":
        from botocore.credentials import RefreshableCredentials  # noqa: PLC0415 - imported on first use

        # it logs a traceback for every failing renewal; the error is raised here and logged once where it is handled
        logging.getLogger("botocore.credentials").setLevel(logging.ERROR)
        first = self._ask()
        self._renewing = RefreshableCredentials(
            access_key=first["access_key"],
            secret_key=first["secret_key"],
            token=first["token"],
            expiry_time=_BIRTH + _LIFE,
            refresh_using=self._ask,
            method="pix4d-s3-credentials",
            time_fetcher=self._share_used,
            mandatory_timeout=_INSISTS,
        )
        return self._renewing

    def _ask(self) -> dict[str, str]:
        grant = self._together.ask(self._fetch)
        # from here, not from the question: a slow answer must not look expired already, and S3 itself says when it is
        self._held = _Held(grant, time.monotonic())
        self._skew = grant.skew
        return {
            "access_key": grant.access_key,
            "secret_key": grant.secret_key,
            "token": grant.session_token,
            "expiry_time": (_BIRTH + _LIFE).isoformat(),
        }

    def _share_used(self) -> datetime:
        held = self._held
        assert held is not None
        return _BIRTH + _LIFE * ((time.monotonic() - held.since) / held.grant.expires_in)
