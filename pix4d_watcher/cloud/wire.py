"""The data plane: one kept-alive connection to S3, and requests whose bodies come straight from files.

A body goes from the file through one page-aligned buffer into the socket; the file is never mapped (a pulled card would
end the process) and never copied in small pieces. Knows neither buckets nor signatures, and never sends anything twice,
with two exceptions. One is a kept connection that turns out to be dead before any byte of the answer: what can be
repeated without harm (all but POST) goes out once more on a fresh one. The other is a peer that refuses 100-continue.
"""

import contextlib
import http.client
import mmap
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pix4d_watcher.cloud.call import USER_AGENT
from pix4d_watcher.cloud.dial import Dialled, Origin, dial
from pix4d_watcher.cloud.faults import translate_socket, unanswered
from pix4d_watcher.cloud.flow import Flow, Incoming, Stop
from pix4d_watcher.cloud.session import IDLE_SECONDS
from pix4d_watcher.core.errors import SourceChanged, SourceUnreadable

BUFFER = 1 << 20
"""Bytes of a connection's buffer. Measured: reading into aligned anonymous memory costs a quarter of a bytearray."""

PIECE = 64 << 10
"""Bytes of an answer that are handed on at a time."""

EXPECT_ABOVE = 1 << 20
"""Bodies above so many bytes wait for 100-continue: a refusal then costs a round trip and not the body."""

EXPECT_SECONDS = 1.0
"""Wait for it no longer, and not again on this connection: not every service or proxy knows 100-continue."""

STALL_SECONDS = 30.0
"""A body that hardly moves for so long is given up, in either direction; see flow.SLOWEST and dial.USER_TIMEOUT_MS."""

ANSWER_SECONDS = 600.0
"""An answer that goes into memory may take so long to come in: S3 sends blanks while it puts many parts together."""

MOST_BYTES = 16 << 20
"""Largest answer that goes into memory; a list of 1,000 parts is about 300 KiB."""

_LAST_WORDS = 0.2
"""Seconds to wait for the answer of a service that closed the connection while the body was on its way."""

_ENDLESS = "the answer does not say where it ends"
_LAST_WORD = b"</Error>"
"""How an error of S3 ends, so that one is whole also where an old proxy ends it by closing the connection."""

_DEATHS = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)

Progress = Callable[[int], None]
Write = Callable[[memoryview], object]


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes of an open file: descriptor, offset and size in bytes. The descriptor's position is never used.

    Each read is made inside of what `reading` returns, which may raise: there the file's owner sees a read that hangs.
    """

    fd: int
    offset: int
    size: int
    reading: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is spoken to and how: a CA bundle in place of the usual one, seconds that an answer may take to begin."""

    origin: Origin
    ca_file: str | None
    timeout: float


@dataclass(frozen=True, slots=True)
class Request:
    """What to send: `target` is path and query, encoded; `headers` (lower-case names) hold `host`."""

    method: str
    peer: Peer
    target: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: FileRange | bytes = b""

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return self.body.size if isinstance(self.body, FileRange) else len(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300


Open = Callable[[Answer], Write]


class Line:
    """One kept-alive connection and its buffer, for one thread; it redials by itself where it must."""

    def __init__(self) -> None:
        """Connect to nothing yet."""
        self._room = memoryview(mmap.mmap(-1, BUFFER))
        self._dialled: Dialled | None = None
        self._peer: Peer | None = None
        self._used = 0.0
        self._expects = True
        self._without: set[Peer] = set()  # who wants no 100-continue, on whatever connection

    def close(self) -> None:
        """Close the connection; the next request dials again."""
        if self._dialled is not None:
            self._dialled.connection.close()
            self._dialled = None

    def exchange(
        self,
        request: Request,
        *,
        what: str,
        stop: Stop | None = None,
        on_progress: Progress | None = None,
        receive: Open | None = None,
    ) -> Answer:
        """Send a request and return its answer, whatever the status.

        `on_progress` gets the bytes of each buffer handed over (again for what is sent again); `stop` is asked for each
        buffer and each half second. The body of a 2xx answer goes to the function that `receive` returns, else into
        the answer. Raises NotSent, Unanswered (also for a stop, and for a 2xx before all was sent), SourceChanged,
        SourceUnreadable.
        """
        flow, response, whole = self._ask(request, what, stop, on_progress)
        with contextlib.ExitStack() as unless_done:
            unless_done.callback(self.close)
            head = Answer(response.status, {name.lower(): value for name, value in response.headers.items()})
            if head.ok and not whole:
                raise unanswered(what, "it was answered before all of it had been sent", status=head.status)
            body = bytearray()
            if receive is not None and head.ok:
                flow.expect(STALL_SECONDS)
                self._drain(response, receive(head), what)
            else:
                flow.expect(request.peer.timeout, slowest=0)  # blanks are a sign of life
                flow.deadline = time.monotonic() + ANSWER_SECONDS
                self._drain(response, lambda piece: _append(body, piece, what), what)
                if _is_endless(response) and not body.rstrip().endswith(_LAST_WORD):
                    raise unanswered(what, _ENDLESS, status=response.status)
            if whole and not response.will_close:
                unless_done.pop_all()
            self._used = time.monotonic()
            return Answer(head.status, head.headers, bytes(body))

    def _ask(
        self, request: Request, what: str, stop: Stop | None, on_progress: Progress | None
    ) -> tuple[Flow, http.client.HTTPResponse, bool]:
        """Send the request and read the head of the answer; the last value says whether all of the body was sent."""
        while True:
            dialled, kept = self._connection(request.peer, what)
            flow = Flow(dialled.sock, what=what, stop=stop, patience=STALL_SECONDS)
            with contextlib.ExitStack() as on_error:
                on_error.callback(self.close)
                waits = self._expects and request.size > EXPECT_ABOVE and request.peer not in self._without
                try:
                    early, whole = self._send(flow, dialled, request, what, on_progress, waits=waits)
                    flow.expect(request.peer.timeout)
                    source: Any = Incoming(flow, early)  # all that HTTPResponse asks of a socket is makefile
                    response = http.client.HTTPResponse(source, method=request.method)
                    response.begin()
                except (OSError, http.client.HTTPException) as error:
                    stale = kept and not flow.heard and isinstance(error, _DEATHS)
                    if not stale or request.method == "POST":
                        raise translate_socket(error, what, sent=True) from error
                else:
                    if waits and response.status == 417:
                        self._without.add(request.peer)
                        continue
                    on_error.pop_all()
                    return flow, response, whole

    def _connection(self, peer: Peer, what: str) -> tuple[Dialled, bool]:
        """Return a connection, and whether it was kept from before."""
        if self._dialled is not None:
            if self._peer == peer and time.monotonic() - self._used < IDLE_SECONDS and self._quiet():
                return self._dialled, True
            self.close()
        self._dialled = dial(peer.origin, ca_file=peer.ca_file, timeout=peer.timeout, what=what)
        self._peer, self._expects = peer, True
        return self._dialled, False

    def _quiet(self) -> bool:
        """Whether the kept connection is open and holds no unasked bytes."""
        assert self._dialled is not None
        try:
            return not Flow(self._dialled.sock, what="", stop=None, patience=STALL_SECONDS).peek(0.0)
        except OSError:
            return False

    def _send(
        self, flow: Flow, dialled: Dialled, request: Request, what: str, on_progress: Progress | None, *, waits: bool
    ) -> tuple[bytes, bool]:
        """Send head and body; returns what has been read of an answer, and whether all was sent."""
        head = _head(dialled, request, waits=waits)
        try:
            if waits:
                flow.send(memoryview(head))
                head = b""
                early = flow.interim(EXPECT_SECONDS)
                if early:
                    return early, False
                self._expects = early is not None
            left = request.size
            for piece, count in self._pieces(head, request, what):
                flow.send(piece)
                left -= count
                if on_progress is not None and count:
                    on_progress(count)
                early = flow.interim(0.0) if left else None
                if early:
                    return early, False
        except _DEATHS:  # a service that refuses in the middle closes; what it said before may be here
            with contextlib.suppress(OSError):
                if early := flow.peek(_LAST_WORDS):
                    return early, False
            raise
        return b"", True

    def _pieces(self, head: bytes, request: Request, what: str) -> Iterator[tuple[memoryview, int]]:
        """Fill the buffer again and again: the head and the first bytes of the body together, then the rest."""
        self._room[: len(head)] = head
        used, done = len(head), 0
        while used or done < request.size:
            count = min(BUFFER - used, request.size - done)
            target = self._room[used : used + count]
            if isinstance(request.body, FileRange):
                _read(request.body, done, target, what)
            else:
                target[:] = request.body[done : done + count]
            done += count
            yield self._room[: used + count], count
            used = 0

    def _drain(self, response: http.client.HTTPResponse, write: Write, what: str) -> None:
        """Hand the whole body on; errors of `write` pass as they are. Raises Unanswered where it ends early."""
        due, got = response.length, 0
        if _is_endless(response) and response.status < 300:
            raise unanswered(what, _ENDLESS, status=response.status)
        while True:
            try:
                # What is there, not a full buffer: a break then loses nothing that had arrived.
                piece = response.read1(PIECE)
            except (OSError, http.client.HTTPException) as error:
                raise translate_socket(error, what, sent=True) from error
            if not piece:
                break
            got += len(piece)
            write(memoryview(piece))
        if due is not None and got != due:
            raise unanswered(what, f"the answer ended after {got} of {due} bytes")


def _head(dialled: Dialled, request: Request, *, waits: bool) -> bytes:
    headers = {**request.headers, **dialled.headers, "user-agent": USER_AGENT}
    if request.method in {"PUT", "POST"}:
        headers["content-length"] = str(request.size)
    if waits:
        headers["expect"] = "100-continue"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{request.method} {dialled.target}{request.target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def _read(source: FileRange, done: int, room: memoryview, what: str) -> None:
    """Fill the buffer from the file; raises SourceChanged where it is shorter, SourceUnreadable for its medium."""
    filled = 0
    while filled < len(room):
        try:
            with source.reading():
                count = os.preadv(source.fd, [room[filled:]], source.offset + done + filled)
        except OSError as error:
            raise SourceUnreadable(
                f"{what}: the file cannot be read ({error.strerror}); is the medium well?"
            ) from error
        if count == 0:
            ends = source.offset + done + filled
            raise SourceChanged(f"{what}: the file ends at {ends} bytes, it was longer when it was frozen")
        filled += count


def _is_endless(response: http.client.HTTPResponse) -> bool:
    """Whether it ends where the connection does; http.client takes a head that was cut off for a whole one, too."""
    return response.length is None and not response.chunked


def _append(body: bytearray, piece: memoryview, what: str) -> None:
    if len(body) + len(piece) > MOST_BYTES:
        raise unanswered(what, f"the answer is longer than {MOST_BYTES >> 20} MiB")
    body += piece
