"""What the tests of the cloud room are told with: servers that misbehave, files that are open."""

import contextlib
import hashlib
import os
import select
import socket
import ssl
import struct
import threading

from pix4d_watcher.cloud.rest import Rest
from pix4d_watcher.cloud.wire import FileRange

WAIT = 20.0  # seconds: no promise, only the end of a test that hangs


class Visitor:
    """One accepted connection: bytes in and out, and rude endings."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(WAIT)

    def head(self):
        """Read up to and including the empty line."""
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            byte = self.sock.recv(1)
            if not byte:
                break
            data += byte
        return data

    def body(self, size):
        """Read so many bytes, or fewer where the client leaves."""
        data = bytearray()
        while len(data) < size:
            piece = self.sock.recv(min(65536, size - len(data)))
            if not piece:
                break
            data += piece
        return bytes(data)

    def request(self):
        """Read head and body of a request with a Content-Length."""
        head = self.head()
        length = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return head, self.body(int(length[0])) if length else b""

    def say(self, data):
        """Send bytes."""
        self.sock.sendall(data)

    def answer(self, status, body=b"", *headers):
        """Send a whole answer."""
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
        self.say("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def reset(self):
        """End the connection with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class RawServers:
    """Servers on free ports whose connections are handled by a story: `story(visitor, number of the connection)`."""

    def __init__(self):
        self.listening = []
        self.threads = []
        self.open = []
        self.failed = []

    def __call__(self, story):
        """Listen and return the port."""
        server = socket.create_server(("127.0.0.1", 0))
        self.listening.append(server)
        self._start(self._accept, server, story)
        return server.getsockname()[1]

    def _accept(self, server, story):
        number = 0
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            self.open.append(sock)
            self._start(self._tell, story, sock, number)
            number += 1

    def _tell(self, story, sock, number):
        with sock:
            try:
                story(Visitor(sock), number)
            except OSError:
                pass  # the client left in the middle, as it may
            except Exception as error:
                self.failed.append(error)
                raise

    def _start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def stop(self):
        """End everything and wait for it."""
        for server in self.listening:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        for sock in self.open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(WAIT)
        assert not self.failed


def join(one, other):
    """Carry bytes both ways until both sides are done or one breaks."""
    ways = {one: other, other: one}
    while ways:
        ready, _, _ = select.select(list(ways), [], [], WAIT)
        if not ready:
            return
        for source in ready:
            while source in ways:
                data = source.recv(65536)
                if data:
                    ways[source].sendall(data)
                else:
                    with contextlib.suppress(OSError):
                        ways.pop(source).shutdown(socket.SHUT_WR)
                if not (isinstance(source, ssl.SSLSocket) and source.pending()):
                    break


def make_rest(url, **changes):
    """Return an API object as the service would make it."""
    settings = {"client_id": "demo-client", "client_secret": "demo-secret", "timeout": WAIT} | changes
    return Rest(url=url, **settings)


class Source:
    """A real file, open."""

    def __init__(self, path, data):
        path.write_bytes(data)
        self.path = path
        self.data = data
        self.fd = os.open(path, os.O_RDONLY)
        self.sha256 = hashlib.sha256(data).digest()

    def range(self, offset=0, size=None):
        """Return a part of it, all by default."""
        return FileRange(self.fd, offset, len(self.data) - offset if size is None else size)


class Big:
    """A multipart upload that was begun."""

    def __init__(self, bucket, line, key):
        self.bucket = bucket
        self.line = line
        self.key = key
        self.id = bucket.initiate(line, key, content_type="image/tiff")

    def part(self, number, image):
        """Upload a part and return its ETag."""
        return self.bucket.part(self.line, self.key, self.id, number, image.range(), image.sha256)

    def listed(self):
        """Ask for the parts."""
        return self.bucket.list_parts(self.line, self.key, self.id)

    def complete(self, etags):
        """Put the parts together."""
        return self.bucket.complete(self.line, self.key, self.id, list(etags.items()))

    def abort(self):
        """Give it up."""
        self.bucket.abort(self.line, self.key, self.id)


class Download:
    """Collects what is written."""

    def __init__(self):
        self.data = bytearray()

    def __call__(self, piece):
        """Take one piece."""
        self.data += piece
