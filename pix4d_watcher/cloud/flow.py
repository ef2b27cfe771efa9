"""Moves bytes over one connected socket, blocking, yet noticing a stop, a stall and a deadline.

A stall is judged by what the kernel says about acknowledged and received bytes, not by how long one call takes: on a
slow link a megabyte may take a minute and the buffers of the kernel another one after it. Knows no HTTP but the end of
a head.
"""

import io
import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable

from pix4d_watcher.core.errors import Unanswered

TICK = 0.5
"""Seconds after which a blocked call looks up: how long a stop may take to be noticed."""

SLOWEST = 100
"""Bytes per second below which a connection counts as stalled: what trickles slower than that never ends, and no link
that carries images is as slow, not even shared by all uploaders."""

_MOST_HEAD = 64 << 10
_TCPI_BYTES_ACKED = 120
"""Offset of tcpi_bytes_acked, followed by tcpi_bytes_received, in Linux' struct tcp_info (since Linux 4.1)."""

Stop = Callable[[], bool]


class Flow:
    """The traffic of one request and its answer; `heard` tells whether a byte of an answer has come."""

    def __init__(self, sock: socket.socket, *, what: str, stop: Stop | None, patience: float) -> None:
        """Take the socket over; `patience` is after how many seconds without movement the connection is given up."""
        self._sock = sock
        self._what = what
        self._stop = stop
        self._moved = -1
        self._since = self._looked = time.monotonic()
        self.deadline = float("inf")
        self.heard = False
        self.expect(patience)

    def expect(self, patience: float, *, slowest: float = SLOWEST) -> None:
        """Change the patience, in seconds, and how many bytes per second are movement; 0: any byte is."""
        self._patience = patience
        self._least = max(1, int(slowest * patience))
        self._sock.settimeout(min(TICK, patience / 2))

    def check(self) -> None:
        """Raise Unanswered where a stop is wanted."""
        if self._stop is not None and self._stop():
            raise Unanswered(f"{self._what}: stopped on request before it was answered")

    def send(self, data: memoryview) -> None:
        """Send everything; raises OSError, TimeoutError for a stall, Unanswered for a stop."""
        self.check()
        while data:
            try:
                data = data[self._sock.send(data) :]
            except TimeoutError as error:  # TLS goes on where it was with the same bytes
                self._look_up(error)

    def receive_into(self, room: memoryview) -> int:
        """Wait for bytes and return how many came, 0 for the end; raises like `send`, and at the deadline."""
        self.check()
        while True:
            if time.monotonic() > self.deadline:
                raise TimeoutError("the answer trickles in too slowly")
            try:
                count = self._sock.recv_into(room)
            except TimeoutError as error:
                self._look_up(error)
            else:
                self.heard = self.heard or count > 0
                if time.monotonic() - self._looked >= TICK:  # a trickle never makes the socket wait for as long
                    self._look_up(None)
                return count

    def interim(self, wait: float) -> bytes | None:
        """Look for an answer before the request is complete, for at most `wait` seconds.

        Returns None for none, b"" for an interim one (100 Continue), else the head of the final answer. Raises
        ConnectionResetError where the connection was closed.
        """
        head = self.peek(wait)
        if not head:
            return None
        byte = bytearray(1)
        while not head.endswith(b"\r\n\r\n") and len(head) < _MOST_HEAD:
            if not self.receive_into(memoryview(byte)):
                break
            head += byte
        return b"" if re.match(rb"HTTP/1\.\d 1\d\d\b", head) else head

    def peek(self, wait: float) -> bytes:
        """Return the first byte if one comes within `wait` seconds, else b""; raises ConnectionResetError at the end.

        Readable does not mean a byte of HTTP: TLS 1.3 sends session tickets when it likes.
        """
        end = time.monotonic() + wait
        readable = select.poll()
        readable.register(self._sock, select.POLLIN)
        before = self._sock.gettimeout()
        self._sock.settimeout(0)
        try:
            while True:
                try:
                    byte = self._sock.recv(1)
                except (BlockingIOError, ssl.SSLWantReadError):
                    if not readable.poll(max(0.0, end - time.monotonic()) * 1000):
                        return b""
                    continue
                if not byte:
                    raise ConnectionResetError("the connection was closed")
                self.heard = True
                return byte
        finally:
            self._sock.settimeout(before)

    def _look_up(self, waited: TimeoutError | None) -> None:
        if waited is not None and waited.errno is not None:
            raise waited  # the kernel's own word that the connection is dead, see dial.USER_TIMEOUT_MS
        self.check()
        self._looked = now = time.monotonic()
        info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_BYTES_ACKED + 16)
        moved = sum(struct.unpack_from("=QQ", info, _TCPI_BYTES_ACKED))
        if self._moved < 0 or moved - self._moved >= self._least:
            self._moved, self._since = moved, now
        elif now - self._since >= self._patience:
            count = f"only {moved - self._moved} bytes" if moved > self._moved else "no byte"
            raise TimeoutError(f"{count} moved for {self._patience:.0f} s") from None


class Incoming(io.RawIOBase):
    """What http.client reads an answer from: bytes that were taken off the socket already, then the flow."""

    def __init__(self, flow: Flow, taken: bytes) -> None:
        """Begin with the bytes taken."""
        super().__init__()
        self._flow = flow
        self._taken = taken

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # a memoryview is what io hands in
        """Fill the buffer with what is there."""
        if self._taken:
            count = min(len(buffer), len(self._taken))
            buffer[:count], self._taken = self._taken[:count], self._taken[count:]
            return count
        return self._flow.receive_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Do what HTTPResponse asks of a socket."""
        return io.BufferedReader(self, 64 << 10)
