"""One HTTP exchange with the REST plane: no retries, no redirect but of a GET to the same host, bounds for all of it.

Proxies come from HTTPS_PROXY, HTTP_PROXY and NO_PROXY. Passwords from a .netrc are never used: they would replace
the token. Knows nothing of projects.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions

from pix4d_watcher.cloud.dial import Origin, proxy_of, way_to
from pix4d_watcher.cloud.faults import from_rest, is_page, read_json, sent_elsewhere, translate_requests, unanswered

USER_AGENT = "pix4d-watcher"
MOST_BYTES = 16 << 20
"""Largest answer that is read, in bytes; 4,000 registered keys or a page of projects are well below 1 MiB."""

_PIECE = 64 << 10

MOST_HOPS = 5
"""Answers to one GET, redirects included; Django needs one, for a path without its last slash."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
Signer = Callable[[requests.PreparedRequest], requests.PreparedRequest]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came: any status."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_html(self) -> bool:
        """Whether it is a page for people."""
        return is_page(self.headers, self.body)

    def value(self, what: str, *, may_be_empty: bool = False) -> Any:
        """Return the JSON of a 2xx answer (None where it may be empty and is), else raise what the answer means."""
        if not 200 <= self.status < 300:
            raise from_rest(self.status, self.headers, self.body, what)
        if may_be_empty and not self.body.strip():
            return None
        try:
            return read_json(self.body)
        except ValueError as error:
            kind = "a page of HTML" if self.is_html else "no JSON"
            why = f"the answer is {kind}, as a proxy or the login page of a network would send"
            raise unanswered(what, why, status=self.status) from error


@dataclass(frozen=True, slots=True)
class Caller:
    """How the REST plane is reached: seconds for each wait, and a CA bundle in place of the usual one.

    `alive` is called before each request, as a sign of life of the thread that sends it.
    """

    timeout: float
    ca_file: str | None = None
    alive: Callable[[], None] = field(default=lambda: None)

    def __call__(
        self,
        session: requests.Session,
        method: str,
        url: str,
        *,
        what: str,
        auth: Signer,
        data: bytes | Mapping[str, str] | None = None,
        content_type: str | None = None,
        follow: bool = False,
    ) -> Reply:
        """Send one request and return its answer, whatever its status; raises NotSent or Unanswered.

        `data` is JSON bytes or form fields; None sends no body at all. Only a GET may `follow` redirects, and only to
        the same host, never out of TLS: whoever answers elsewhere could tell us anything, Unanswered says so.
        """
        for _hop in range(MOST_HOPS if follow else 1):
            reply = self._once(session, method, url, what=what, auth=auth, data=data, content_type=content_type)
            target = _header(reply, "location") if follow and reply.status in _REDIRECTS else ""
            if not target:
                return reply
            url = _same_place(url, target, what, reply.status)
        return reply

    def _once(
        self,
        session: requests.Session,
        method: str,
        url: str,
        *,
        what: str,
        auth: Signer,
        data: bytes | Mapping[str, str] | None,
        content_type: str | None,
    ) -> Reply:
        self.alive()
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        if content_type is not None:
            headers["Content-Type"] = content_type
        proxy, _login = proxy_of(url, what)  # requests would say no more than InvalidURL, or end in a ValueError
        way = way_to(Origin.of(url), proxy)
        try:
            with session.request(
                method,
                url,
                data=data,
                headers=headers,
                auth=auth,
                timeout=self.timeout,
                allow_redirects=False,
                verify=self.ca_file or True,
                stream=True,
            ) as response:
                body = _read(response, what)
                return Reply(response.status_code, dict(response.headers), body)
        except (OSError, urllib3.exceptions.HTTPError) as error:  # those of requests are OSErrors
            raise translate_requests(error, what, way) from error


def _same_place(url: str, target: str, what: str, status: int) -> str:
    """Return the address that a redirect names; raises Unanswered where that is another host, or TLS would end."""
    try:
        new, old = urlsplit(urljoin(url, target)), urlsplit(url)
        same = (new.hostname, new.scheme) == (old.hostname, old.scheme) and new.port == old.port
        upgraded = new.hostname == old.hostname and (old.scheme, new.scheme) == ("http", "https")
    except ValueError:
        same = upgraded = False
    if not (same or upgraded):
        raise sent_elsewhere(what, target, status)
    return new.geturl()


def _header(reply: Reply, name: str) -> str:
    return next((value for key, value in reply.headers.items() if key.lower() == name), "")


def without_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Send the request as it is."""
    return request


def _read(response: requests.Response, what: str) -> bytes:
    body = bytearray()
    while piece := response.raw.read1(_PIECE):
        body += piece
        if len(body) > MOST_BYTES:
            raise unanswered(what, f"the answer is longer than {MOST_BYTES >> 20} MiB", status=response.status_code)
    return bytes(body)
