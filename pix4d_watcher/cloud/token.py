"""The access token of the REST API: fetched with the client's id and secret, renewed before it expires.

The secret travels in a form body only, never in a URL (the service's own demo does that, and proxies log it).
"""

import threading
import time

from pix4d_watcher.cloud.answers import seconds, text
from pix4d_watcher.cloud.call import Caller, Reply, without_auth
from pix4d_watcher.cloud.faults import from_rest, read_json
from pix4d_watcher.cloud.session import Session
from pix4d_watcher.cloud.together import Together
from pix4d_watcher.core.errors import AuthRefused, NotSent, RemoteError, Throttled, Unanswered

PATH = "/oauth2/token/"
"""With the slash: without it a redirect would turn the POST into a GET."""

_WHAT = "Access token"
_LIFETIME = 3600.0
"""Seconds, where the answer does not name a lifetime; the guide shows 36000 in one place and 172800 in another."""

_EARLY = 60.0
"""Renewed so many seconds before the end, or at 90 % of the lifetime, whichever is later."""

_WRONG_CLIENT = frozenset({"invalid_client", "unauthorized_client", "access_denied", "invalid_grant"})


class Token:
    """The token of one client, shared by all threads; one renewal at a time, whose failure is that of all who wait."""

    def __init__(self, *, url: str, client_id: str, client_secret: str, caller: Caller) -> None:
        """Fetch nothing yet; `url` is the REST base."""
        self._url = url.rstrip("/") + PATH
        self._client_id = client_id
        self._client_secret = client_secret
        self._call = caller
        self._lock = threading.Lock()
        self._together = Together()
        self._value = ""
        self._renew_at = 0.0
        self.obtained = False

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Token(obtained={self.obtained})"

    def value(self) -> str:
        """Return a token that is still good.

        Raises AuthRefused where id or secret are refused, Throttled, or NotSent for every other trouble: whatever
        the token was wanted for has surely not been sent.
        """
        self._together.come()
        with self._lock:
            if not self._value or time.monotonic() >= self._renew_at:
                self._together.ask(self._fetch)
            return self._value

    def renew(self, refused: str) -> str:
        """Return another token than the `refused` one; fetches only if no other thread has done so meanwhile."""
        self._together.come()
        with self._lock:
            if self._value == refused:
                self._value = ""  # if none is to be had now, `value` asks again
            if not self._value:
                self._together.ask(self._fetch)
            return self._value

    def _fetch(self) -> None:
        fields = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._client_secret,
            "token_format": "jwt",
        }
        asked = time.monotonic()
        try:
            with Session() as session:
                reply = self._call(session, "POST", self._url, what=_WHAT, auth=without_auth, data=fields)
            answer = _answer(reply)
            value = text(answer.get("access_token"))
            if not value or not value.isascii() or not value.isprintable():
                raise NotSent(f"{_WHAT}: the answer holds no access_token; check cloud.url", status=reply.status)
        except Unanswered as error:
            raise NotSent(f"{error}; without a token nothing is sent", status=error.status) from error
        lifetime = seconds(answer.get("expires_in")) or _LIFETIME
        self._value = value
        self._renew_at = asked + lifetime - min(_EARLY, lifetime / 10)
        self.obtained = True


def _answer(reply: Reply) -> dict[str, object]:
    """Return the JSON object of a token answer, or raise what the refusal means."""
    if 200 <= reply.status < 300:
        value = reply.value(_WHAT)
        return value if isinstance(value, dict) else {}
    refused = reply.status == 401 and not reply.is_html
    if refused or (reply.status in {400, 403} and _oauth_error(reply.body) in _WRONG_CLIENT):
        raise AuthRefused(
            "Access token: the client id or secret is refused by the service; check client_id and client_secret,"
            " and that the API credentials were not deleted in the account",
            status=reply.status,
            words=_oauth_error(reply.body),
        )
    error: RemoteError = from_rest(reply.status, reply.headers, reply.body, _WHAT)
    if isinstance(error, Throttled | Unanswered):
        raise error
    hint = ", or log in to this network" if error.is_page else ""
    raise NotSent(f"{error}; check cloud.url{hint}", status=error.status, words=error.words)


def _oauth_error(body: bytes) -> str:
    try:
        value = read_json(body)
    except ValueError:
        return ""
    return text(value.get("error")) if isinstance(value, dict) else ""
