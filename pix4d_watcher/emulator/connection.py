"""One connection of the emulator: reading requests, acting out scripted faults, writing answers.

Built on the standard library's request handler and not on an ASGI framework, because the faults act on the connection
itself: it is reset before or after a request was applied, bodies are cut in either direction, reading stalls; an ASGI
application never holds the socket. Must not know what requests mean: rest.py, s3.py and control.py do.
"""

import array
import contextlib
import dataclasses
import fcntl
import os
import re
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import BinaryIO, cast

from pix4d_watcher.emulator import control, rest, s3
from pix4d_watcher.emulator.faults import Fault
from pix4d_watcher.emulator.s3_multipart import MULTIPART_OPERATIONS
from pix4d_watcher.emulator.state import State
from pix4d_watcher.emulator.wire import BLOCK, Answer, Body, ClientGone, Request

_OPERATIONS = {**s3.OBJECT_OPERATIONS, **MULTIPART_OPERATIONS}
_DRAIN = 8 << 20  # bytes of an unwanted body that are read away so that the connection can live on
_LINGER = 1.0  # seconds that a client has to take an answer that came before it had sent its whole body
_TAKE = 30.0  # seconds that a slow client has to take an answer that is cut
_HTML = b"<!doctype html><html><head><title>Welcome</title></head><body><h1>Log in to this network</h1></body></html>"

_REASONS: dict[int, str] = {status.value: status.phrase for status in HTTPStatus}

Run = Callable[[Request], Answer]


class _Reset(Exception):
    """The connection is to be reset without another word."""


class Server(ThreadingMixIn, TCPServer):
    """The listening socket, and the connections that are open."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], state: State) -> None:
        """Listen on the address; raises OSError when it is taken."""
        self.state = state
        self.stopped = threading.Event()
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(address, Connection)

    def get_request(self) -> tuple[socket.socket, object]:
        """Accept a connection and remember it, so that stopping can end it."""
        connection, peer = super().get_request()
        with self._changed:
            self._open.add(connection)
        return connection, peer

    def closed(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._changed:
            self._open.discard(connection)
            self._changed.notify_all()

    def end_connections(self, seconds: float) -> None:
        """End all waits and connections, and wait at most so long for their threads."""
        self.stopped.set()
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, seconds)


def _dispatch(state: State, request: Request) -> tuple[str, str, Run]:
    """Return operation, S3 key or project id, and the function that carries the request out."""
    bucket = state.settings.bucket
    if rest.is_rest(request.path) and not request.header("Host").startswith(f"{bucket}."):
        rest_target = rest.route(request)
        return rest_target.op, rest_target.project, lambda meant: rest.answer(state, meant, rest_target)
    target = s3.route(request, bucket)
    return target.op, target.key, lambda meant: s3.answer(state, meant, target, _OPERATIONS)


class Connection(BaseHTTPRequestHandler):
    """One kept-alive connection, in a thread of its own."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server
    connection: socket.socket
    _counted = False
    _expects = False
    _cut: int | None = None

    def handle(self) -> None:
        """Serve requests until the client leaves, or a fault or the end of the emulator resets the connection."""
        tracked = self.connection
        try:
            super().handle()
        except _Reset:
            self._reset()
        except (ClientGone, ConnectionError, TimeoutError):
            self.close_connection = True  # nobody is there to be answered
        finally:
            self.server.closed(tracked)

    def handle_expect_100(self) -> bool:
        """Note that the client waits; `100 Continue` goes out when somebody wants the body."""
        self._expects = True
        return True

    def handle_one_request(self) -> None:
        """Read, carry out and answer one request."""
        self._expects, self._cut = False, None
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        length = self.headers.get("Content-Length")
        if length is not None and not length.isdecimal():
            self.send_error(HTTPStatus.BAD_REQUEST)
            self.close_connection = True
            return
        target = self.raw_requestline.split()[1].decode("latin-1")
        path, _, query = target.partition("?")
        body = Body(
            cast("BinaryIO", self.rfile),
            None if length is None else int(length),
            chunked="chunked" in self.headers.get("Transfer-Encoding", "").lower(),
            send_continue=(lambda: self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n"))
            if self._expects
            else None,
        )
        request = Request(self.command, path, query, self.headers, body)
        if path.startswith(control.PREFIX):
            self._send(request, control.answer(self.server.state, request))
        else:
            self._serve(request)

    def _serve(self, request: Request) -> None:
        state = self.server.state
        op, key, run = _dispatch(state, request)
        state.let_land()
        with state.lock:
            state.connections += not self._counted
            state.requests[op] += 1
        self._counted = True
        fault = state.faults.take(op, key)
        try:
            answer = run(request) if fault is None else self._faulty(fault, request, run)
        finally:
            with state.lock:
                state.received_bytes += request.body.received
        if answer.status >= HTTPStatus.BAD_REQUEST:
            with state.lock:
                state.refused[op] += 1
        self._send(request, answer)

    def _faulty(self, fault: Fault, request: Request, run: Run) -> Answer:
        """Act out what a fault does before the request is applied, then apply it and go on with what comes after."""
        match fault.do:
            case "drop_before":
                raise _Reset
            case "stall":
                self.server.stopped.wait(fault.seconds)
                raise _Reset
            case "cut_body":
                request.body.discard(fault.bytes)
                raise _Reset
            case "late":
                self._apply_late(fault.seconds, request, run)
                raise _Reset
            case "status":
                return _scripted(fault)
            case "html":
                return Answer(200, {"Content-Type": "text/html"}, _HTML)
            case "expire_credentials" | "expire_token":
                self.server.state.expire(fault.do.removeprefix("expire_"))
        return self._faulty_after(fault, run(request))

    def _faulty_after(self, fault: Fault, answer: Answer) -> Answer:
        if fault.do == "delay":
            self.server.stopped.wait(fault.seconds)
        elif fault.do == "wrong_etag":
            wrong = "0" * 32
            answer.headers |= {"ETag": f'"{wrong}"'} if "ETag" in answer.headers else {}
            answer.body = re.sub(rb"<ETag>.*?</ETag>", f'<ETag>"{wrong}"</ETag>'.encode(), answer.body)
        elif fault.do == "cut":
            self._cut = fault.bytes
        elif fault.do in ("drop_after", "status_after", "not_json"):
            if answer.file is not None:
                answer.file.close()
            if fault.do == "drop_after":
                raise _Reset
            not_json = Answer(200, {"Content-Type": "application/json"}, b'{"detail": "and here it ends')
            return _scripted(fault) if fault.do == "status_after" else not_json
        return answer

    def _apply_late(self, seconds: float, request: Request, run: Run) -> None:
        """Read the whole request now and apply it in `seconds`, unless the emulator is stopped before.

        Whoever asks after that finds it applied, however long the thread took that does it.
        """
        path = self.server.state.new_file()
        view = memoryview(bytearray(BLOCK))
        with path.open("wb") as file:
            while got := request.body.readinto(view):
                file.write(view[:got])

        landed, due, state = threading.Event(), time.monotonic() + seconds, self.server.state
        state.late[landed] = due

        def apply() -> None:
            try:
                if not self.server.stopped.wait(due - time.monotonic()):
                    with path.open("rb") as source:
                        answer = run(
                            dataclasses.replace(
                                request, body=Body(source, path.stat().st_size, chunked=False, send_continue=None)
                            )
                        )
                    if answer.file is not None:
                        answer.file.close()
            finally:
                del state.late[landed]
                landed.set()
                path.unlink(missing_ok=True)

        threading.Thread(target=apply, name="emulator-late", daemon=True).start()

    def _send(self, request: Request, answer: Answer) -> None:
        """Write an answer, then read away or cut off what is left of the request's body."""
        body = request.body
        unread = not body.finished
        if unread and (body.awaits_continue or not body.left_at_most(_DRAIN)):
            self.close_connection = True
        headers = {"Date": formatdate(self.server.state.now(), usegmt=True), **answer.headers}
        if answer.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            headers["Content-Length"] = str(answer.size)
        if self.close_connection:
            headers["Connection"] = "close"
        lines = [
            f"HTTP/1.1 {answer.status} {_reason(answer.status)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        with contextlib.closing(answer.file) if answer.file is not None else contextlib.nullcontext():
            size = 0 if request.method == "HEAD" else answer.size if self._cut is None else min(self._cut, answer.size)
            self.connection.sendall(head + answer.body[:size])
            if answer.file is not None and size:
                self.connection.sendfile(answer.file, answer.offset, size)
        if self._cut is not None:
            self._wait_until_taken()
            raise _Reset
        if unread and self.close_connection:
            self._linger()
        elif unread:
            body.discard(_DRAIN)

    def _linger(self) -> None:
        """Let the client take the answer: a close with unread data would reset the connection and lose it."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(_LINGER)
        left = _DRAIN
        while left > 0 and (got := self.rfile.read1(BLOCK)):
            left -= len(got)

    def _wait_until_taken(self) -> None:
        """Wait until the client's kernel has all that was sent, for a reset discards the rest."""
        queued, until = array.array("i", [1]), time.monotonic() + _TAKE
        while queued[0] and time.monotonic() < until:
            fcntl.ioctl(self.connection, termios.TIOCOUTQ, queued)
            self.server.stopped.wait(0.005)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())  # a plain close would first send FIN


def _scripted(fault: Fault) -> Answer:
    kind = {"Content-Type": fault.content_type or "text/plain"}
    return Answer(fault.code, {**kind, **fault.headers}, (fault.body or "").encode())


def _reason(status: int) -> str:
    return _REASONS.get(status, "Unknown")
