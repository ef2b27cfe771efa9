"""The account: is the client let in, does the API answer, can projects be listed, where does S3 of a project lie."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from pix4d_watcher.cloud.rest import Rest
from pix4d_watcher.core.errors import AuthRefused, NotThere, RemoteError
from pix4d_watcher.doctor import network
from pix4d_watcher.doctor.findings import Finding, Level, failed, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pix4d_watcher.config import ClientCredentials, Settings
    from pix4d_watcher.journal.records import Project

_NEW_PAIR = (
    "make new API credentials at account.pix4d.com (your organisation, API access), put the secret into the file that "
    "client_secret_file names, and restart the service"
)
_LATER = "try again in some minutes; where it stays, status.pix4d.com or the support of PIX4D"


def api(settings: Settings, client: ClientCredentials | None, newest: Project | None) -> Iterator[Finding]:
    """Go from the name of the API's host to S3, and stop where the way ends."""
    found = []
    for finding in network.reach("API", settings.cloud.url, ca_file=ca_file(settings), patience=patience(settings)):
        found.append(finding)
        yield finding
    if any(finding.level is Level.FAIL and "clock" not in finding.name for finding in found):
        yield warn("token", "not asked for, since the API is not reached", "mend that first")
        return
    if client is None:
        yield warn("token", "not asked for, without id and secret", "mend that first")
        return
    with closing(rest_of(settings, client)) as rest:
        yield from _let_in(rest, settings, newest)


def s3(settings: Settings) -> Iterator[Finding]:
    """Go to the S3 that the configuration names."""
    assert settings.cloud.s3_endpoint is not None
    yield from network.reach("S3", settings.cloud.s3_endpoint, ca_file=ca_file(settings), patience=patience(settings))


def rest_of(settings: Settings, client: ClientCredentials) -> Rest:
    """Make the API's client as the service does, with the doctor's patience."""
    return Rest(
        url=settings.cloud.url,
        client_id=client.client_id,
        client_secret=client.client_secret,
        timeout=patience(settings),
        ca_file=ca_file(settings),
    )


def ca_file(settings: Settings) -> str | None:
    """Return the configured authorities as the cloud room takes them."""
    return None if settings.cloud.ca_file is None else str(settings.cloud.ca_file)


def patience(settings: Settings) -> float:
    """Return the seconds for each wait on the network: the service's own patience, or a person's."""
    return min(settings.advanced.request_timeout, network.PATIENCE)


def _let_in(rest: Rest, settings: Settings, newest: Project | None) -> Iterator[Finding]:
    try:
        rest.token.value()
    except AuthRefused as error:
        yield failed("token", error, _NEW_PAIR)
        return
    except RemoteError as error:
        yield failed("token", error, _LATER)
        return
    yield ok("token", "the service accepts client id and secret")
    try:
        # Every name holds the empty text, so that the first page with a project on it is the last that is read.
        search = rest.find_projects("", known=[])
    except RemoteError as error:
        yield failed("projects", error, _LATER)
        return
    if search.matches or search.read_to_end:
        yield ok("projects", f"the list of projects can be read{'' if search.matches else ', and is empty'}")
    else:
        text = "the list of projects cannot be read: after a lost answer an empty twin of a project may be left"
        yield warn(
            "projects", text, "nothing to do: it costs nothing. cloud.create_in_doubt: hold asks a person instead"
        )
    if settings.cloud.s3_endpoint is None:
        yield from _s3_of(rest, settings, newest)


def _s3_of(rest: Rest, settings: Settings, newest: Project | None) -> Iterator[Finding]:
    """Ask for the S3 credentials of our newest project, which changes nothing, and go to where they lead."""
    from pix4d_watcher.cloud.bucket import Bucket  # noqa: PLC0415  (brings botocore along)
    from pix4d_watcher.cloud.credentials import Credentials  # noqa: PLC0415

    number = newest.remote_id if newest is not None else None
    if number is None:
        yield ok("S3", "where it lies is told with the first project; pix4d-watcher doctor --upload tries it")
        return
    credentials = Credentials(lambda: rest.s3_grant(number))
    bucket = Bucket(credentials, s3_endpoint=None, ca_file=ca_file(settings), timeout=patience(settings))
    try:
        origin = bucket.origin()
    except NotThere:
        yield ok("S3", f"project {number} is not in the cloud any more; pix4d-watcher doctor --upload tries another")
        return
    except RemoteError as error:
        yield failed("S3", error, _LATER)
        return
    yield network.skew("S3 clock", credentials.skew)
    yield from network.reach("S3", origin.url, ca_file=ca_file(settings), patience=patience(settings))
