"""The trial upload, only when it was asked for: a project of its own, a small object, a multipart upload, and away.

The only part of the doctor that changes something, and only in the cloud: the journal never hears of it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import closing
from typing import TYPE_CHECKING

from pix4d_watcher.core.errors import AuthRefused, CredentialsExpired, Refused, RemoteError
from pix4d_watcher.doctor import account, network
from pix4d_watcher.doctor.findings import failed, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pix4d_watcher.cloud.bucket import Bucket
    from pix4d_watcher.cloud.rest import CloudProject, Rest
    from pix4d_watcher.cloud.wire import Line
    from pix4d_watcher.config import ClientCredentials, Settings
    from pix4d_watcher.doctor.findings import Finding

NAME = "pix4d-watcher doctor, may be deleted"
"""What the trial's project is called, with a random token behind it as in every name that we give."""

OBJECT = "pix4d-watcher-doctor.txt"

_BODY = b"A trial of pix4d-watcher doctor --upload. It may be deleted.\n"
_NO_ENTRY = "the account may not do this: ask who administers it at PIX4D for the rights of PIX4Dengine Cloud"


def upload(settings: Settings, client: ClientCredentials) -> Iterator[Finding]:
    """Create a project, put, look at and delete an object, begin and abort a multipart upload; start nothing."""
    with closing(account.rest_of(settings, client)) as rest:
        try:
            # As the service would: an account may insist on a field.
            created = rest.create(f"{NAME} [{secrets.token_hex(6)}]", dict(settings.watch[0].project.create))
        except RemoteError as error:
            yield failed("trial project", error, _NO_ENTRY)
            return
        text = f"project {created.id} made; it is empty, was never started, costs nothing, and stays in the cloud"
        yield ok("trial project", f"{text}: the API has no call to delete it, the cloud's own page has")
        try:
            yield from _objects(rest, settings, created)
        except RemoteError as error:
            yield failed("trial upload", error, _remedy(error))


def _objects(rest: Rest, settings: Settings, created: CloudProject) -> Iterator[Finding]:
    from pix4d_watcher.cloud.bucket import Bucket  # noqa: PLC0415  (brings botocore along)
    from pix4d_watcher.cloud.credentials import Credentials  # noqa: PLC0415
    from pix4d_watcher.cloud.wire import Line  # noqa: PLC0415

    credentials = Credentials(lambda: rest.s3_grant(created.id))
    bucket = Bucket(
        credentials,
        s3_endpoint=settings.cloud.s3_endpoint,
        ca_file=account.ca_file(settings),
        timeout=account.patience(settings),
    )
    credentials.current()
    yield network.skew("S3 clock", credentials.skew)
    with closing(Line()) as line:
        key = f"{created.prefix}/{OBJECT}"
        _put(bucket, line, key)
        yield ok("trial upload", f"{len(_BODY)} bytes sent to {bucket.origin().host}, and taken as what they are")
        yield _look(bucket, line, key)
        bucket.abort(line, key, bucket.initiate(line, key))
        yield ok("trial multipart", "begun and aborted: large files can be sent in parts")
        yield _delete(bucket, line, key)


def _put(bucket: Bucket, line: Line, key: str) -> None:
    from pix4d_watcher.cloud.wire import FileRange  # noqa: PLC0415

    handle = os.memfd_create("pix4d-watcher-doctor", os.MFD_CLOEXEC)
    try:
        os.write(handle, _BODY)
        whole = FileRange(handle, 0, len(_BODY))
        bucket.put(line, key, whole, hashlib.sha256(_BODY).digest(), content_type="text/plain")
    finally:
        os.close(handle)


def _look(bucket: Bucket, line: Line, key: str) -> Finding:
    name = "trial look"
    try:
        found = bucket.head(line, key)
    except Refused as error:
        text = f"objects may not be looked at ({error.status}); a lost answer to a large file sends it again"
        return warn(name, text, "nothing to do: it costs time only")
    if found is None or found[0] != len(_BODY):
        return warn(name, "what was sent is not to be seen yet", "try again; where it stays, ask the support of PIX4D")
    return ok(name, "the object is there, whole")


def _delete(bucket: Bucket, line: Line, key: str) -> Finding:
    name = "trial removal"
    try:
        bucket.remove(line, key)
    except Refused as error:
        text = f"{OBJECT} may not be deleted ({error.status}) and stays in the empty project"
        return warn(name, text, "nothing to do: the service never deletes an object")
    return ok(name, f"{OBJECT} is deleted")


def _remedy(error: RemoteError) -> str:
    if isinstance(error, AuthRefused | CredentialsExpired | Refused):
        return _NO_ENTRY
    return "is the way to S3 open (firewall, proxy, NO_PROXY)? curl -v the host that is named here"
