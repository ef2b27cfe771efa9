"""What travels on a connection: a request with a body still unread, and an answer not yet written.

Owns HTTP body framing (Content-Length and chunked). Must not know what requests mean.
"""

import email.message
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import parse_qsl

BLOCK = 256 * 1024
_LINE_LIMIT = 8192


class ClientGone(Exception):
    """The client closed the connection, or broke the framing, before its body was complete."""


class TooLong(Exception):
    """A body that is read into memory is longer than it may be."""


class Body:
    """The body of one request, read from the connection on demand."""

    def __init__(
        self, source: BinaryIO, length: int | None, *, chunked: bool, send_continue: Callable[[], None] | None
    ) -> None:
        """Read `length` bytes or HTTP chunks from `source`; `send_continue` is called before the first byte is read."""
        self._source = source
        self._left = 0 if chunked else (length or 0)  # of the body, or of the present chunk
        self._chunked = chunked
        self._send_continue = send_continue
        self.length = None if chunked else length
        self.finished = not chunked and not length
        self.received = 0

    @property
    def awaits_continue(self) -> bool:
        """Whether the client still waits for `100 Continue` before it sends the body."""
        return self._send_continue is not None and not self.finished

    def left_at_most(self, limit: int) -> bool:
        """Whether no more than `limit` bytes are known to be still on the way."""
        return self.finished or (not self._chunked and self._left <= limit)

    def readinto(self, view: memoryview) -> int:
        """Fill a part of `view` and return how many bytes; 0 at the end. Raises ClientGone when the body is cut off."""
        if self.finished:
            return 0
        if self._send_continue is not None:
            send, self._send_continue = self._send_continue, None
            send()
        if self._chunked and self._left == 0 and not self._next_chunk():
            return 0
        got: int = self._source.readinto1(view[: min(len(view), self._left)])  # type: ignore[attr-defined]  # a BufferedReader has it
        if got == 0:
            raise ClientGone(f"the body ended {self._left} bytes early")
        self._left -= got
        self.received += got
        if self._left == 0:
            if self._chunked:
                self._source.readline(_LINE_LIMIT)  # the line end that closes a chunk
            else:
                self.finished = True
        return got

    def _next_chunk(self) -> bool:
        line = self._source.readline(_LINE_LIMIT)
        try:
            self._left = int(line.split(b";")[0], 16)
        except ValueError:
            raise ClientGone("the chunked body is malformed") from None
        if self._left == 0:
            while self._source.readline(_LINE_LIMIT).strip():  # trailers of HTTP itself are of no use to anybody here
                pass
            self.finished = True
        return not self.finished

    def readline(self) -> bytes:
        """Read up to and with the next line feed; raises ClientGone when there is none in reach."""
        line, one = bytearray(), memoryview(bytearray(1))
        while not line.endswith(b"\n"):
            if not self.readinto(one) or len(line) > _LINE_LIMIT:
                raise ClientGone("a line of the body does not end")
            line += one
        return bytes(line)

    def read_all(self, limit: int) -> bytes:
        """Read the whole body into memory; raises TooLong above `limit` bytes."""
        parts, view = bytearray(), memoryview(bytearray(min(BLOCK, limit + 1)))
        while got := self.readinto(view):
            parts += view[:got]
            if len(parts) > limit:
                raise TooLong(f"the body is longer than {limit} bytes")
        return bytes(parts)

    def discard(self, limit: int) -> None:
        """Read and forget up to `limit` bytes."""
        view = memoryview(bytearray(BLOCK))
        while limit > 0 and (got := self.readinto(view[: min(limit, BLOCK)])):
            limit -= got


@dataclass(frozen=True, slots=True)
class Request:
    """One request: `path` and `query` exactly as sent, still percent-encoded."""

    method: str
    path: str
    query: str
    headers: email.message.Message
    body: Body

    def header(self, name: str, default: str = "") -> str:
        """Return a header's value, or the default."""
        value = self.headers.get(name)
        return default if value is None else str(value)

    def params(self) -> dict[str, str]:
        """Return the decoded query parameters; of several with one name the last."""
        return dict(parse_qsl(self.query, keep_blank_values=True))


@dataclass(slots=True)
class Answer:
    """One answer: either `body`, or `length` bytes of the open `file` from `offset` (the server closes the file)."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: BinaryIO | None = None
    offset: int = 0
    length: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the body, sent or (for HEAD) only announced."""
        return len(self.body) if self.length is None else self.length


def json_answer(status: int, value: object, headers: Mapping[str, str] | None = None) -> Answer:
    """Return an answer that carries a JSON value."""
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())
