"""The REST API of PIX4Dengine Cloud: projects, registration, start, outputs.

Every request is sent once; only a 401, which is surely not applied, renews the token and sends once more. What to do
about errors is the caller's business. The paths are those of the service's guide; the list of projects is not in it.
"""

import json
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from pix4d_watcher.cloud.answers import (
    CloudOutput,
    CloudProject,
    FoundProject,
    ProjectSearch,
    S3Grant,
    merge_outputs,
    parse_grant,
    parse_outputs,
    parse_project,
    text,
    whole,
)
from pix4d_watcher.cloud.call import Caller, Reply, Signer, without_auth
from pix4d_watcher.cloud.faults import from_rest, unanswered
from pix4d_watcher.cloud.session import Session
from pix4d_watcher.cloud.token import Token
from pix4d_watcher.core.errors import AuthRefused, Refused, Unanswered

__all__ = [
    "CloudOutput",
    "CloudProject",
    "FoundProject",
    "ProjectSearch",
    "Rest",
    "S3Grant",
    "merge_outputs",
]

PROJECTS = "/project/api/v3/projects/"
MOST_PAGES = 200
"""Pages of the list of projects that are read; beyond them the list counts as not read to its end."""


class Rest:
    """The API of one account, shared by all threads; `timeout` is in seconds for each wait on the network."""

    def __init__(
        self,
        *,
        url: str,
        client_id: str,
        client_secret: str,
        timeout: float,
        ca_file: str | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """Connect to nothing yet. `ca_file` replaces the usual trusted CAs; `alive` is called before each request."""
        self._url = url.rstrip("/")
        self._call = Caller(timeout, ca_file, alive)
        self.token = Token(url=self._url, client_id=client_id, client_secret=client_secret, caller=self._call)
        self._own = threading.local()
        self._sessions: weakref.WeakSet[requests.Session] = weakref.WeakSet()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the idle connections of all threads."""
        with self._lock:
            for session in self._sessions:
                session.close()

    def create(self, name: str, fields: Mapping[str, Any]) -> CloudProject:
        """Create a project (an effect) and return it; raises Unanswered also where the answer lacks id or bucket."""
        what = f"Creating project {name!r}"
        value = self._effect(PROJECTS, {**fields, "name": name}, what).value(what)
        return parse_project(value, what, created=True)

    def project(self, remote_id: int) -> CloudProject:
        """Return a project as it is now."""
        what = f"Reading project {remote_id}"
        return parse_project(self._get(f"{PROJECTS}{remote_id}/", what).value(what), what)

    def find_projects(self, marker: str, *, known: Collection[int]) -> ProjectSearch:
        """Look for projects whose name has the marker, and say how far the list of projects can be trusted.

        The list is not documented: a refusal, a 5xx or an unknown shape makes it one that was not read to its end.
        Raises NotSent, AuthRefused, Throttled, and Unanswered where the network failed. Stops at the first match.
        """
        saw_known = False
        url: str | None = self._url + PROJECTS
        seen: set[str] = set()
        while url is not None and url not in seen and len(seen) < MOST_PAGES:
            seen.add(url)
            page = self._page(url)
            if page is None:
                break
            rows, following = page
            saw_known = saw_known or any(row.id in known for row in rows)
            matches = tuple(row for row in rows if marker in row.name)
            if matches or following is None:
                return ProjectSearch(matches, following is None, saw_known)
            url = self._same_host(following, url)
        return ProjectSearch((), read_to_end=False, saw_known=saw_known)

    def s3_grant(self, remote_id: int) -> S3Grant:
        """Return fresh S3 credentials for a project's prefix."""
        what = f"S3 credentials of project {remote_id}"
        asked = time.monotonic()  # the wall clock may jump while the answer is awaited
        value = self._get(f"{PROJECTS}{remote_id}/s3_credentials/", what).value(what)
        grant = parse_grant(value, what, now=time.time() - (time.monotonic() - asked) / 2)
        if self._url.startswith("https://") and (grant.endpoint_override or "").lower().startswith("http://"):
            raise unanswered(what, "the service names an S3 address without TLS, where no image is sent")
        return grant

    def register(self, remote_id: int, keys: Sequence[str]) -> int | None:
        """Register uploaded objects by their full keys (an effect); returns how many the service says it took."""
        what = f"Registering {len(keys)} images of project {remote_id}"
        reply = self._effect(f"{PROJECTS}{remote_id}/inputs/bulk_register/", {"input_file_keys": list(keys)}, what)
        value = reply.value(what, may_be_empty=True)
        return whole(value.get("nb_images_registered")) if isinstance(value, Mapping) else None

    def start(self, remote_id: int, body: Mapping[str, Any] | None) -> None:
        """Start processing (an effect that costs money); None sends no body, as the guide does."""
        what = f"Starting project {remote_id}"
        self._effect(f"{PROJECTS}{remote_id}/start_processing/", body, what).value(what, may_be_empty=True)

    def extras(self, remote_id: int, key: str) -> bool:
        """Register an uploaded file that is no image by its full key; the same again names the same file.

        False where the endpoint (not in the guide, seen in a client) answers 404 or 405. A 409 is taken for a file
        that is registered already, which is an assumption.
        """
        what = f"Registering {key} of project {remote_id}"
        reply = self._effect(f"{PROJECTS}{remote_id}/extras/", {"file_key": key}, what)
        if reply.status not in {404, 405, 409}:
            reply.value(what, may_be_empty=True)
        return reply.status not in {404, 405}

    def outputs(self, remote_id: int) -> tuple[CloudOutput, ...] | None:
        """Return the outputs of a project, or None where the endpoint (not in the guide) answers 404 or 405."""
        what = f"Outputs of project {remote_id}"
        reply = self._get(f"{PROJECTS}{remote_id}/outputs/", what)
        return None if reply.status in {404, 405} else parse_outputs(reply.value(what), what)

    def ping(self) -> bool:
        """Prove that the REST plane answers, without a token; raises NotSent or Unanswered.

        Any answer counts but 5xx, 407, HTML with a 2xx and a redirect to another host: those come from what lies
        between. False where a page for people said no: that may be the service's own, or a firewall's.
        """
        what = "Asking whether the service answers"
        with closing(Session()) as session:
            reply = self._call(session, "GET", self._url + PROJECTS, what=what, auth=without_auth)
        target = next((value for name, value in reply.headers.items() if name.lower() == "location"), "")
        elsewhere = 300 <= reply.status < 400 and self._same_host(target, self._url) is None
        page = 200 <= reply.status < 300 and reply.is_html
        if reply.status >= 500 or reply.status == 407 or elsewhere or page:
            raise unanswered(what, f"something else answered {reply.status} in its place", status=reply.status)
        return not reply.is_html

    def ready(self) -> None:
        """Prove that the REST plane answers and gives out tokens; raises what `ping` and `Token.value` raise."""
        answers = self.ping()
        token = self.token.value()
        if not answers:
            self.token.renew(token)  # no firewall gives out new ones

    def _get(self, path: str, what: str) -> Reply:
        session: requests.Session | None = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = Session()
            with self._lock:
                self._sessions.add(session)
        url = path if path.startswith("http") else self._url + path
        return self._with_token(session, "GET", url, what, None)

    def _effect(self, path: str, body: Mapping[str, Any] | None, what: str) -> Reply:
        """POST on a fresh connection: an idle one may lead nowhere, and nobody could tell whether it was applied."""
        data = None if body is None else json.dumps(body).encode()
        with closing(Session()) as session:
            return self._with_token(session, "POST", self._url + path, what, data)

    def _with_token(self, session: requests.Session, method: str, url: str, what: str, data: bytes | None) -> Reply:
        token = self.token.value()
        for last in (False, True):
            reply = self._call(
                session,
                method,
                url,
                what=what,
                auth=_bearer(token),
                data=data,
                content_type=None if data is None else "application/json",
                follow=method == "GET",
            )
            if last or not _token_refused(reply, what):
                break
            token = self.token.renew(token)
            if method == "POST":
                session.close()  # drops the kept connection, so that the second try is on a fresh one too
        return reply

    def _page(self, url: str) -> tuple[list[FoundProject], str | None] | None:
        """Return a page of the list and the address of the next, or None where there is no list to be had."""
        what = "Listing projects"
        try:
            value = self._get(url, what).value(what)
        except AuthRefused:
            raise
        except Refused:
            return None
        except Unanswered as error:
            if error.status is not None and error.status >= 500:
                return None
            raise
        rows = value.get("results", value.get("projects")) if isinstance(value, Mapping) else value
        if not isinstance(rows, list):
            return None
        found = [_found(row) for row in rows if isinstance(row, Mapping)]
        following = text(value.get("next")) if isinstance(value, Mapping) else ""
        return [row for row in found if row is not None], following or None

    def _same_host(self, url: str, base: str) -> str | None:
        """Return an address of ours for a link in an answer, or None where it leads to another host.

        Scheme and port stay ours: services behind a TLS proxy hand out http:// links to themselves.
        """
        try:
            target, own = urlsplit(urljoin(base, url)), urlsplit(self._url)
        except ValueError:
            return None
        if target.hostname != own.hostname:
            return None
        return target._replace(scheme=own.scheme, netloc=own.netloc, fragment="").geturl()


def _found(row: Mapping[str, Any]) -> FoundProject | None:
    number = whole(row.get("id"))
    return None if number is None else FoundProject(number, text(row.get("name")) or text(row.get("display_name")))


def _bearer(token: str) -> Signer:
    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return sign


def _token_refused(reply: Reply, what: str) -> bool:
    refused = reply.status in {401, 403}
    return refused and isinstance(from_rest(reply.status, reply.headers, reply.body, what), AuthRefused)
