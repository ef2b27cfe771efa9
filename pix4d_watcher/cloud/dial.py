"""Makes connections to S3: which proxy, which trusted CAs, which socket options. Sends no request.

Proxies and CAs are chosen by the same code as for REST (requests): HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY,
and without `ca_file` REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or certifi's bundle.
"""

import base64
import contextlib
import http.client
import os
import socket
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import certifi
from requests.utils import get_auth_from_url, get_environ_proxies, prepend_scheme_if_needed, select_proxy

from pix4d_watcher.cloud.faults import translate_socket
from pix4d_watcher.core.errors import NotSent
from pix4d_watcher.core.model import host_name

CONNECT_SECONDS = 15.0
"""Longest wait for one address to answer; a satellite link needs about two."""

USER_TIMEOUT_MS = 30_000
"""TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged. Measured: 15 s kills live connections behind a bloated
4G buffer, and without it the kernel's own back-off wakes up 40 s after an outage has ended."""

CONGESTION = b"bbr"
"""Four BBR connections fill lossy links on which cubic reaches 7 to 32 %; not every kernel allows it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request goes: scheme http or https, host name or address, port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the origin of an http or https address; raises ValueError for anything else."""
        parts = urlsplit(url)
        host = host_name(parts.hostname)
        if parts.scheme not in {"http", "https"} or not host:
            raise ValueError(f"{url!r} is no http:// or https:// address")
        return cls(parts.scheme, host, parts.port or (443 if parts.scheme == "https" else 80))

    @property
    def authority(self) -> str:
        """The Host header: the port only where it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.scheme == "https" else 80
        return host if self.port == usual else f"{host}:{self.port}"

    @property
    def address(self) -> str:
        """Where is connected to: host and port, whichever it is."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Scheme and authority."""
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class Dialled:
    """A connection, and what each request on it needs.

    `target` comes before the path in the request line (the absolute form, for a plain HTTP proxy); `headers` are added.
    """

    connection: http.client.HTTPConnection
    target: str
    headers: dict[str, str] = field(repr=False)

    @property
    def sock(self) -> socket.socket:
        """The connected socket."""
        assert self.connection.sock is not None
        return self.connection.sock


def dial(origin: Origin, *, ca_file: str | None, timeout: float, what: str) -> Dialled:
    """Connect to an origin, through a proxy where the environment names one; raises NotSent for any trouble."""
    proxy, login = proxy_of(origin.url, what)
    what += f": {way_to(origin, proxy)}"
    if proxy is not None and proxy.scheme != "http":
        raise NotSent(f"{what}: nothing was sent: {proxy.url} cannot be used for uploads, only http://host:port")
    there, sock = proxy or origin, None
    try:
        context = tls_context(ca_file or _usual_bundle()) if origin.scheme == "https" else None
        sock = socket.create_connection((there.host, there.port), min(timeout, CONNECT_SECONDS))
        _tune(sock)
        if context is not None:
            if proxy is not None:
                tunnel(sock, origin.host, origin.port, login)
            sock = context.wrap_socket(sock, server_hostname=origin.host)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if sock is not None:
            sock.close()
        raise translate_socket(error, what, sent=False) from error
    connection = http.client.HTTPConnection(origin.host, origin.port)
    connection.sock = sock
    return Dialled(connection, origin.url, login) if proxy and context is None else Dialled(connection, "", {})


def proxy_of(url: str, what: str) -> tuple[Origin | None, dict[str, str]]:
    """Return the proxy that the environment names for an address, None for none, and the header with its login.

    Raises NotSent for what is no proxy, and never repeats it: any part of it could be one of a password.
    """
    proxies = get_environ_proxies(url)
    address = select_proxy(url, proxies)
    if not address:
        return None, {}
    try:
        return _proxy(address)
    except ValueError:
        scheme = urlsplit(url).scheme
        variable = f"{scheme.upper()}_PROXY" if scheme in proxies else "ALL_PROXY"
        # Not as one address: logs hide what looks like a password in one.
        form = "http://host:port, with a login as name:password@ before the host, and other signs in it as %XX"
        raise NotSent(f"{what}: nothing was sent: {variable} names no proxy that can be used; write {form}") from None


def tunnel(
    sock: socket.socket,
    host: str,
    port: int,
    headers: Mapping[str, str],
    answers: type[http.client.HTTPResponse] = http.client.HTTPResponse,
) -> None:
    """Ask a proxy to lead on to a place, in HTTP/1.1: Python 3.11 speaks 1.0 without Host, which some proxies refuse.

    Raises OSError where the proxy says no, and HTTPException where it speaks no HTTP.
    """
    place = f"{f'[{host}]' if ':' in host else host}:{port}"
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "Host": place}.items())
    sock.sendall(f"CONNECT {place} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"))
    with answers(sock, method="CONNECT") as answer:
        answer.begin()
        if answer.status != http.HTTPStatus.OK:
            raise OSError(f"the proxy answered {answer.status} {answer.reason}")


def way_to(origin: Origin, proxy: Origin | None) -> str:
    """Say where a connection was to lead and through which proxy, whose login is not shown."""
    return f"connecting to {origin.address}{f' through the proxy {proxy.address}' if proxy else ''}"


def tls_context(bundle: str) -> ssl.SSLContext:
    """Return the TLS settings that trust what a bundle, a file or OpenSSL's directory, holds now; raises OSError."""
    facts = Path(bundle).stat()
    return _tls_context(bundle, (facts.st_mode, facts.st_ino, facts.st_size, facts.st_mtime_ns))


@lru_cache(maxsize=4)  # loading a bundle takes 10 to 20 ms, a context serves any number of connections
def _tls_context(bundle: str, facts: tuple[int, ...]) -> ssl.SSLContext:
    if stat.S_ISDIR(facts[0]):
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)


def _usual_bundle() -> str:
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()


def _proxy(address: str) -> tuple[Origin, dict[str, str]]:
    """Read a proxy's address as requests does; raises ValueError also for what would end in one there."""
    urlsplit(address)
    address = prepend_scheme_if_needed(address, "http")  # type: ignore[no-untyped-call]
    if "@" in address and urlsplit(address).username is None:
        raise ValueError("a password seems to be where the port or path should be")
    name, password = get_auth_from_url(address)
    login = base64.b64encode(f"{name}:{password}".encode("latin-1")).decode()
    return Origin.of(address), {"Proxy-Authorization": f"Basic {login}"} if name else {}


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in ((socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS), (socket.TCP_CONGESTION, CONGESTION)):
        with contextlib.suppress(OSError):  # EPERM or ENOENT: the kernel's own choice does too
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
