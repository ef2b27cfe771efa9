"""The way to a host as the service goes it: name, proxy, connection, TLS, and the host's own clock. Needs no token."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from typing import TYPE_CHECKING

from pix4d_watcher.cloud.dial import Origin, dial, proxy_of
from pix4d_watcher.cloud.faults import answered_at, translate_socket
from pix4d_watcher.core.errors import NotSent, RemoteError
from pix4d_watcher.doctor.findings import Cause, Finding, fail, failed, ok, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pix4d_watcher.cloud.dial import Dialled

PATIENCE = 10.0
"""Seconds for each wait on the network: a satellite link needs about two, and a person waits for the answer."""

EXPIRES_SOON = 14
"""Days that a certificate should still hold; those that renew themselves do so 30 days before."""

SKEWED, TOO_SKEWED = 30.0, 15 * 60.0
"""Seconds between two clocks: what deserves a look, and where S3 answers RequestTimeTooSkewed (its documentation)."""

_CERTIFICATE = {
    9: "not valid yet: look at this machine's clock first (timedatectl)",
    10: "expired: look at this machine's clock first (timedatectl); else its owner must renew it",
    62: "made for another name: correct the address, or what lies between answers in its place",
    64: "made for another address: correct the address, or what lies between answers in its place",
}
"""What to do about the codes of X509_verify_cert that people meet; for all others a CA is missing."""

_UNKNOWN_CA = (
    "not signed by an authority that is trusted here: where a proxy of yours looks into TLS, name its authority with "
    "cloud.ca_file; otherwise somebody is in between, and nothing may be sent"
)


def reach(plane: str, url: str, *, ca_file: str | None, patience: float) -> Iterator[Finding]:
    """Go to the host of an address step by step, and stop at the first that fails; `plane` is API or S3."""
    origin = Origin.of(url)
    what = f"{plane} at {origin.host}"
    try:
        proxy, _login = proxy_of(origin.url, what)
    except NotSent as error:
        remedy = "correct it where the service gets its environment (Environment= or EnvironmentFile= of its unit)"
        yield failed(f"{plane} connection", error, remedy)
        return
    yield from (found := [*_name(plane, proxy or origin)])
    if found[-1].level == "fail":
        return
    try:
        dialled = dial(origin, ca_file=ca_file, timeout=patience, what=what)
    except NotSent as error:
        yield _unreached(plane, origin, proxy, error)
        return
    with contextlib.closing(dialled.connection):
        via = f" through the proxy {proxy.url}" if proxy else ""
        yield from _certificate(plane, dialled)
        yield from _answer(plane, dialled, origin, via)


def _name(plane: str, host: Origin) -> Iterator[Finding]:
    try:
        found = socket.getaddrinfo(host.host, host.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        words = error.strerror if isinstance(error, socket.gaierror) else "no name that DNS knows"
        remedy = f"try: getent hosts {host.host}; is a name server set in /etc/resolv.conf, is the link up (ip route)?"
        yield fail(f"{plane} name", f"{host.host} has no address: {words}", remedy, Cause.UNREACHABLE)
        return
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    more = f" and {len(addresses) - 3} more" if len(addresses) > 3 else ""
    yield ok(f"{plane} name", f"{host.host} is {', '.join(addresses[:3])}{more}")


def _unreached(plane: str, origin: Origin, proxy: Origin | None, error: NotSent) -> Finding:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        remedy = f"the certificate is {_CERTIFICATE.get(cause.verify_code, _UNKNOWN_CA)}"
        return failed(f"{plane} certificate", error, remedy)
    if proxy:
        remedy = (
            f"look at HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the service; try: curl -v -x {proxy.url} {origin.url}"
        )
    else:
        remedy = f"is the link up, does a firewall let port {origin.port} out? try: curl -v {origin.url}"
    return failed(f"{plane} connection", error, remedy)


def _certificate(plane: str, dialled: Dialled) -> Iterator[Finding]:
    sock = dialled.sock
    if not isinstance(sock, ssl.SSLSocket):
        return
    facts = sock.getpeercert() or {}
    left = (ssl.cert_time_to_seconds(str(facts["notAfter"])) - time.time()) / 86400
    text = f"trusted, {sock.version()}, {left:.0f} days left"
    if left < EXPIRES_SOON:
        yield warn(f"{plane} certificate", text, "its owner must renew it; nothing is sent once it has expired")
    else:
        yield ok(f"{plane} certificate", text)


def _answer(plane: str, dialled: Dialled, origin: Origin, via: str) -> Iterator[Finding]:
    """Ask for nothing in particular: any answer shows that somebody is there, and its Date what his clock says."""
    what = f"{plane} at {origin.host}"
    try:
        headers = {**dialled.headers, "Host": origin.authority, "User-Agent": "pix4d-watcher"}
        asked = time.time()
        dialled.connection.request("GET", f"{dialled.target}/", headers=headers)
        response = dialled.connection.getresponse()
        now = (asked + time.time()) / 2
    except (OSError, http.client.HTTPException) as error:
        answer: RemoteError = translate_socket(error, what, sent=True)
        yield failed(f"{plane} connection", answer, f"what listens there does not answer: curl -v {origin.url}")
        return
    if response.status == 407:
        remedy = "put the login into the address: HTTPS_PROXY=http://name:password@host:port"
        yield fail(f"{plane} connection", f"{what}: the proxy wants another login", remedy, Cause.UNREACHABLE)
        return
    yield ok(f"{plane} connection", f"{origin.url} answers{via}")
    theirs = answered_at(dict(response.headers))
    if theirs is not None and plane == "API":
        yield skew("API clock", theirs - now)


def skew(name: str, seconds: float) -> Finding:
    """Judge how far the service's clock is ahead of ours, in seconds."""
    size = abs(seconds)
    if size < SKEWED:
        return ok(name, f"it agrees with this machine's to {size:.0f} s")
    way = "behind" if seconds > 0 else "ahead of"
    text = f"this machine's clock is {size:.0f} s {way} the service's"
    remedy = "set this machine's clock: sudo timedatectl set-ntp true"
    if size < TOO_SKEWED:
        return warn(name, text, remedy)
    text += "; S3 calls that RequestTimeTooSkewed, and uploads go on only because the service corrects for it"
    return fail(name, text, remedy)
