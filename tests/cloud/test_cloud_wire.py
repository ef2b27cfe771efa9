"""The data plane against servers that answer early, late, never or half."""

import errno
import os
import socket
import threading
import time

import pytest

from pix4d_watcher.cloud import wire
from pix4d_watcher.cloud.dial import Origin
from pix4d_watcher.cloud.wire import FileRange, Peer, Request
from pix4d_watcher.core import errors

MIB = 1 << 20


def ask(port, body=b"", *, method="PUT", timeout=5.0):
    origin = Origin("http", "127.0.0.1", port)
    return Request(method, Peer(origin, None, timeout), "/b/k?x=1", {"host": origin.authority}, body)


def send(line, request, **more):
    return line.exchange(request, what="Upload of k", **more)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB])
def test_the_bytes_of_the_file(raw_server, line, source, size):
    """What arrives is the file, byte for byte, and progress adds up to its size."""
    arrived, steps = [], []

    def story(visitor, _number):
        head = visitor.head()
        if b"100-continue" in head:
            visitor.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        arrived.append((head, visitor.body(size)))
        visitor.answer(200, b"", 'ETag: "e"')

    file = source(os.urandom(size))
    answer = send(line, ask(raw_server(story), file.range()), on_progress=steps.append)
    ((head, body),) = arrived
    assert (answer.status, answer.headers["etag"]) == (200, '"e"')
    assert head.startswith(b"PUT /b/k?x=1 HTTP/1.1\r\n")
    assert f"content-length: {size}\r\n".encode() in head
    assert (b"expect: 100-continue" in head) == (size > MIB)
    assert body == file.data
    assert sum(steps) == size
    assert len(steps) <= size // MIB + 2  # a megabyte at a time; the head shares the first buffer


def test_a_part_of_a_file(raw_server, line, source):
    """A range is read at its offset, and the descriptor's position stays."""
    arrived = []

    def story(visitor, _number):
        arrived.append(visitor.request()[1])
        visitor.answer(200)

    file = source(bytes(range(256)) * 100)
    os.lseek(file.fd, 7, os.SEEK_SET)
    send(line, ask(raw_server(story), file.range(1000, 777)))
    assert arrived == [file.data[1000:1777]]
    assert os.lseek(file.fd, 0, os.SEEK_CUR) == 7


def test_a_refusal_costs_no_body(raw_server, line, source, monkeypatch):
    """A final answer in place of 100-continue ends the request, and its words are read."""
    monkeypatch.setattr(wire, "EXPECT_SECONDS", 10.0)
    left = []

    def story(visitor, _number):
        visitor.head()
        visitor.answer(403, b"<Error/>", "Connection: close")
        left.append(visitor.body(1))

    sent = []
    answer = send(line, ask(raw_server(story), source(b"x" * (3 * MIB)).range()), on_progress=sent.append)
    assert (answer.status, answer.body, sent) == (403, b"<Error/>", [])
    line.close()


def test_a_service_that_does_not_know_100_continue(raw_server, line, source, monkeypatch):
    """The body goes out after a short wait, and the next one on this connection without it."""
    monkeypatch.setattr(wire, "EXPECT_SECONDS", 0.05)
    heads = []

    def story(visitor, _number):
        for _ in range(2):
            head, body = visitor.request()
            heads.append(head)
            visitor.answer(200, str(len(body)).encode())

    port, file = raw_server(story), source(b"x" * (2 * MIB))
    assert [send(line, ask(port, file.range())).body for _ in range(2)] == [b"2097152"] * 2
    assert [b"expect" in head for head in heads] == [True, False]


def test_a_proxy_that_refuses_100_continue(raw_server, line, source):
    """A 417 costs one request: the body goes out without asking, and so does each later one to this peer."""
    heads = []

    def story(visitor, number):
        heads.append(visitor.head())
        if number == 0:
            visitor.answer(417)
            visitor.head()
        else:
            size = len(visitor.body(2 * MIB))
            visitor.answer(200, str(size).encode(), "Connection: close")

    port, file = raw_server(story), source(b"x" * (2 * MIB))
    assert [send(line, ask(port, file.range())).body for _ in range(2)] == [b"2097152"] * 2
    assert [b"expect" in head for head in heads] == [True, False, False]


def test_a_late_100_continue(raw_server, line, source, monkeypatch):
    """An interim answer in the middle of the body is not taken for the answer."""
    monkeypatch.setattr(wire, "EXPECT_SECONDS", 0.0)

    def story(visitor, _number):
        visitor.head()
        visitor.body(MIB)
        visitor.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        visitor.body(19 * MIB)
        visitor.answer(200, b"all")

    assert send(line, ask(raw_server(story), source(bytes(20 * MIB)).range())).body == b"all"


@pytest.mark.parametrize("ending", ["waits", "closes"])
def test_an_answer_in_the_middle_of_the_body(raw_server, line, source, ending):
    """A service that refuses in the middle is heard, and the rest is not sent."""
    size = 64 * MIB

    def story(visitor, _number):
        visitor.head()
        visitor.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        visitor.body(MIB)
        visitor.answer(400, b"enough")
        if ending == "waits":
            visitor.body(size)
        else:
            visitor.sock.shutdown(socket.SHUT_WR)
            visitor.body(8 * MIB)

    sent = []
    answer = send(line, ask(raw_server(story), source(bytes(size)).range()), on_progress=sent.append)
    assert (answer.status, answer.body) == (400, b"enough")
    assert sum(sent) < size


@pytest.mark.parametrize("read", [0, MIB])
def test_a_success_before_the_end_of_the_body(raw_server, line, source, read):
    """What was not sent to its end did not arrive, whatever is answered, and the connection is given up."""

    def story(visitor, number):
        visitor.head()
        if number == 0 and read:
            visitor.say(b"HTTP/1.1 100 Continue\r\n\r\n")
            visitor.body(read)
        visitor.answer(200, b"", 'ETag: "e"')
        visitor.body(1)

    port = raw_server(story)
    with pytest.raises(errors.Unanswered, match="before all of it had been sent"):
        send(line, ask(port, source(bytes(64 * MIB)).range()))
    assert send(line, ask(port)).status == 200


def test_a_connection_is_kept(raw_server, line):
    """Requests follow each other on one connection until an answer ends it."""
    numbers = []

    def story(visitor, number):
        while visitor.request()[0]:
            numbers.append(number)
            visitor.answer(200, b"x", *(["Connection: close"] if len(numbers) == 2 else []))
            if len(numbers) == 2:
                return

    port = raw_server(story)
    assert [send(line, ask(port)).body for _ in range(4)] == [b"x"] * 4
    assert numbers == [0, 0, 1, 1]


@pytest.mark.parametrize("ending", ["close", "reset"])
def test_a_kept_connection_that_died(raw_server, line, source, ending):
    """It dies while the next request is on its way: once more on a fresh one, with the whole body."""
    bodies = []

    def story(visitor, number):
        bodies.append((number, visitor.request()[1]))
        visitor.answer(200)
        if number == 0:
            visitor.head()
            if ending == "reset":
                visitor.reset()

    port, file = raw_server(story), source(b"abc" * 1000)
    send(line, ask(port))
    assert send(line, ask(port, file.range())).status == 200
    assert bodies == [(0, b""), (1, file.data)]


def test_an_idle_connection_that_was_closed(raw_server, line):
    """A connection that the service has closed meanwhile is not used; not even a POST is lost by it."""
    closed = threading.Event()

    def story(visitor, _number):
        visitor.request()
        visitor.answer(200)
        visitor.sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    port = raw_server(story)
    send(line, ask(port))
    assert closed.wait(5)
    assert send(line, ask(port, b"x", method="POST")).status == 200


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_fresh_connection_that_dies(raw_server, line, method):
    """No second try on a connection that was new, and never one of a POST."""
    seen = []

    def story(visitor, number):
        if method == "POST" and number == 0:
            visitor.request()
            visitor.answer(200)
        seen.append(visitor.head())
        visitor.reset()

    port = raw_server(story)
    if method == "POST":
        send(line, ask(port))
    with pytest.raises(errors.Unanswered):
        send(line, ask(port, b"", method=method))
    assert len(seen) == 1


@pytest.mark.parametrize(
    "half",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    ],
)
def test_half_an_answer(raw_server, line, half):
    """An answer that ends early, or is none, leaves open what happened; the connection is not used again."""

    def story(visitor, number):
        visitor.request()
        visitor.say(half) if number == 0 else visitor.answer(200)

    port = raw_server(story)
    with pytest.raises(errors.Unanswered):
        send(line, ask(port))
    assert send(line, ask(port)).status == 200


@pytest.mark.parametrize(
    ("status", "body", "understood"),
    [
        (400, b"<Error><Code>ExpiredToken</Code></Error>\n", True),
        (400, b"<Error><Code>ExpiredTo", False),
        (400, b"", False),
        (200, b"<Error><Code>InternalError</Code></Error>", False),
    ],
)
def test_an_error_that_ends_with_its_connection(raw_server, line, status, body, understood):
    """Where an answer ends only with the connection, an error of S3 is understood if it is whole, and nothing else."""

    def story(visitor, _number):
        visitor.request()
        visitor.say(f"HTTP/1.0 {status} X\r\n\r\n".encode() + body)

    request = ask(raw_server(story))
    if understood:
        answer = send(line, request)
        assert (answer.status, answer.body) == (status, body)
    else:
        with pytest.raises(errors.Unanswered, match="does not say where it ends"):
            send(line, request)


@pytest.mark.parametrize("size", [0, 40 * MIB])
def test_a_stall(raw_server, line, source, monkeypatch, size):
    """Where no byte moves any more, the request ends by itself."""
    monkeypatch.setattr(wire, "STALL_SECONDS", 0.3)
    done = threading.Event()

    def story(visitor, _number):
        visitor.head()
        visitor.say(b"HTTP/1.1 100 Continue\r\n\r\n" if size else b"")
        done.wait(20)

    with pytest.raises(errors.Unanswered, match="no byte moved"):
        send(line, ask(raw_server(story), source(bytes(size)).range(), timeout=0.3))
    done.set()


@pytest.mark.parametrize("where", ["head", "download", "upload"])
def test_a_trickle(raw_server, line, source, monkeypatch, where):
    """Where bytes only trickle, in the head, the body or the other way, the request ends by itself like a stall."""
    monkeypatch.setattr(wire, "STALL_SECONDS", 1.0)
    done = threading.Event()

    def story(visitor, _number):
        visitor.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        visitor.head()
        begins = {"head": b"HTTP/1.1 200 OK\r\nX: ", "upload": b"HTTP/1.1 100 Continue\r\n\r\n"}
        visitor.say(begins.get(where, b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 1000000\r\n\r\n"))
        while not done.wait(0.05):
            visitor.body(1) if where == "upload" else visitor.say(b"x")

    body = source(bytes(40 * MIB)).range() if where == "upload" else b""
    receive = (lambda _answer: lambda _piece: None) if where == "download" else None
    began = time.monotonic()
    with pytest.raises(errors.Unanswered, match=r"(only \d+ bytes|no byte) moved"):
        send(line, ask(raw_server(story), body, timeout=1.0), receive=receive)
    done.set()
    assert time.monotonic() - began < 20


def test_slow_is_no_stall(raw_server, line, source, monkeypatch):
    """A body that trickles away is answered in the end, however long the kernel's own buffers take to empty."""
    monkeypatch.setattr(wire, "STALL_SECONDS", 2.0)

    def story(visitor, _number):
        visitor.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        visitor.head()
        visitor.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        pause = threading.Event()
        for _ in range(32):
            visitor.body(MIB // 4)
            pause.wait(0.2)
        visitor.answer(200, b"all")

    assert send(line, ask(raw_server(story), source(bytes(8 * MIB)).range(), timeout=2.0)).body == b"all"


@pytest.mark.parametrize("moment", ["before", "waiting"])
def test_a_stop(raw_server, line, source, moment):
    """A stop ends the request soon, in the middle of the body or while it waits for an answer."""
    wanted = threading.Event()

    def story(visitor, _number):
        visitor.request()
        wanted.set()
        visitor.head()

    if moment == "before":
        wanted.set()
    with pytest.raises(errors.Unanswered, match="stopped"):
        send(line, ask(raw_server(story), source(b"x").range(), timeout=60.0), stop=wanted.is_set)


def test_a_file_that_shrinks(raw_server, line, source):
    """A file that ends before its frozen size is source_changed, and the half request dies with its connection."""
    file = source(bytes(8 * MIB))
    got = []

    def story(visitor, _number):
        visitor.head()
        os.truncate(file.path, 3 * MIB)
        visitor.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        got.append(len(visitor.body(8 * MIB)))

    with pytest.raises(errors.SourceChanged, match=r"ends at 3145728 bytes"):
        send(line, ask(raw_server(story), file.range()))
    line.close()


def test_a_medium_that_fails(raw_server, line, tmp_path):
    """An error of the disk is told from one of the network."""
    handle = os.open(tmp_path, os.O_RDONLY)  # a directory answers a read with an error, as a pulled card does
    try:
        with pytest.raises(errors.SourceUnreadable, match=os.strerror(errno.EISDIR)):
            send(line, ask(raw_server(lambda visitor, number: visitor.head()), FileRange(handle, 0, 10)))
    finally:
        os.close(handle)


def test_errors_of_the_receiver_pass(raw_server, line):
    """A full disk under a download is no error of the network, and the connection is given up."""

    def story(visitor, _number):
        visitor.request()
        visitor.answer(200, b"x" * 1000)

    def full(_piece):
        raise OSError(errno.ENOSPC, "full")

    port = raw_server(story)
    with pytest.raises(OSError, match="full"):
        send(line, ask(port, method="GET"), receive=lambda answer: full)
    assert send(line, ask(port)).body == b"x" * 1000


def test_an_answer_without_end(raw_server, line, monkeypatch):
    """What goes into memory is bounded."""
    monkeypatch.setattr(wire, "MOST_BYTES", 100_000)
    with pytest.raises(errors.Unanswered, match="longer than"):
        send(line, ask(raw_server(lambda visitor, number: visitor.request() and visitor.answer(200, bytes(200_000)))))


def test_blanks_before_the_answer(raw_server, line):
    """An answer that is being made for long, with blanks to keep the connection, is awaited."""

    def story(visitor, _number):
        visitor.request()
        visitor.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(13):
            threading.Event().wait(0.2)
            visitor.say(b"1\r\n \r\n")
        visitor.say(b"4\r\n<a/>\r\n0\r\n\r\n")

    assert send(line, ask(raw_server(story), timeout=2.0)).body.strip() == b"<a/>"


def test_nobody_listens(line):
    """A connection that does not come about sends nothing."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # without listen
        with pytest.raises(errors.NotSent, match="Connection refused"):
            send(line, ask(taken.getsockname()[1]))


def test_no_such_name(line):
    """A name that does not resolve sends nothing."""
    peer = Peer(Origin.of("https://no-such-host.invalid"), None, 5.0)
    with pytest.raises(errors.NotSent, match=r"no-such-host\.invalid"):
        send(line, Request("GET", peer, "/", {"host": "x"}))


@pytest.mark.parametrize(
    ("url", "authority", "port"),
    [
        ("https://s3.test", "s3.test", 443),
        ("https://s3.test:443/x", "s3.test", 443),
        ("http://[::1]:9000", "[::1]:9000", 9000),
        ("http://a:443", "a:443", 443),
        ("HTTPS://S3.test", "s3.test", 443),
        ("https://clöud.test", "xn--clud-6qa.test", 443),
    ],
)
def test_origins(url, authority, port):
    """The Host header names the port only where it is not the usual one, and a name as DNS knows it."""
    assert (Origin.of(url).authority, Origin.of(url).port) == (authority, port)


@pytest.mark.parametrize(
    "url", ["ftp://a", "s3.test", "https://", "http://a:b", "http://a:99999", "http://a b", "http://a..b", "http://a,b"]
)
def test_no_origin(url):
    """What cannot be spoken to is said to be so."""
    with pytest.raises(ValueError, match=r"."):
        Origin.of(url)
