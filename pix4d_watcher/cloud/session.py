"""Connections to the REST plane: an answer has a deadline from first byte to last, idle ones are not used again.

What requests and urllib3 lack: their time-out begins again with every byte and with every address of a host, and they
keep connections for ever. Sends nothing by itself.
"""

import http.client
import io
import socket
import time
from typing import Any

import requests
import requests.adapters
import urllib3
import urllib3.connection

from pix4d_watcher.cloud.dial import tunnel

IDLE_SECONDS = 20.0
"""A connection idle for longer is not used again: services close it, address translation of mobile links forgets it."""

CONNECT_LEAST = 5.0
"""Seconds that each address of a host has to answer, however many they are; a satellite link needs about two."""

_DEADLINES = 4
"""An answer may take this many times the time-out, from the end of the request to its own, however it trickles."""


class _Timely(io.RawIOBase):
    """What comes off a socket until a deadline: its own time-out begins again with every byte."""

    def __init__(self, raw: io.RawIOBase, seconds: float) -> None:
        super().__init__()
        self._raw = raw
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int | None:  # type: ignore[override]  # what io hands in
        if time.monotonic() > self._deadline:
            raise TimeoutError("the answer trickles in too slowly")
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer whose head, too, comes in time."""

    def __init__(self, sock: Any, *rest: Any, **more: Any) -> None:
        super().__init__(sock, *rest, **more)
        seconds = sock.gettimeout()
        if seconds is not None:
            raw = self.fp.detach()
            self.fp = io.BufferedReader(_Timely(raw, _DEADLINES * seconds))


class _Plain(urllib3.connection.HTTPConnection):
    response_class = _Answer
    _tunnel_host: Any  # set by `set_tunnel`, as the next two
    _tunnel_port: Any
    _tunnel_headers: Any

    def _new_conn(self) -> socket.socket:
        self.timeout = _share(self._dns_host, self.port, self.timeout)
        return super()._new_conn()

    def _tunnel(self) -> None:
        tunnel(self.sock, self._tunnel_host, self._tunnel_port, self._tunnel_headers, self.response_class)


class _Tls(_Plain, urllib3.connection.HTTPSConnection):
    pass


def _share(host: str, port: int | None, seconds: Any) -> Any:
    """Return how long one address of a host is waited for, so that all of them together have the time-out.

    A firewall that drops packets lets each one use up its time: with eight addresses that would be minutes.
    """
    try:
        addresses = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except UnicodeError:
        return seconds  # no name at all, which connecting says
    return max(seconds / len(addresses), min(seconds, CONNECT_LEAST))


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Tls


_POOLS = {"http": _PlainPool, "https": _TlsPool}


class _Adapter(requests.adapters.HTTPAdapter):
    """Connections whose answers come in time, directly and through a proxy."""

    def init_poolmanager(self, *rest: Any, **more: Any) -> None:
        super().init_poolmanager(*rest, **more)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: Any, **more: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **more)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class Session(requests.Session):
    """Connections of one thread. One that was idle for long is not used again."""

    def __init__(self) -> None:
        """Connect to nothing yet."""
        super().__init__()
        self._used = 0.0
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def send(self, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        """Send on a fresh connection where the kept one may lead nowhere by now."""
        if time.monotonic() - self._used > IDLE_SECONDS:
            self.close()
        try:
            return super().send(request, **more)
        finally:
            self._used = time.monotonic()

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Name none: even where nothing is to be followed, requests would read the whole body of a redirect."""
        del resp
