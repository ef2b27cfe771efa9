"""Something on the way to the cloud that meddles: changes bytes, or resets connections on what they carry."""

import contextlib
import socket
import struct
import threading

from harness import until

UP, DOWN = "up", "down"

LONGEST = 128
"""Bytes of what is looked for, at most."""


class Middle:
    """A relay on a port of 127.0.0.1, from entering to leaving it. Rules can be added while it runs."""

    def __init__(self, url):
        host, _, port = url.rpartition("/")[2].rpartition(":")
        self._target = (host, int(port))
        self._lock = threading.Lock()
        self._rules = []
        self._open = set()
        self.done = []

    def __enter__(self):
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        """End all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in list(self._open):
            _reset(sock)
        until(lambda: not self._open, "all connections are closed")

    def flip(self, way, data, times=1):
        """Change a byte of `data` wherever it passes, so many times."""
        self._add("flip", way, data, times)

    def reset(self, way, data, times=None):
        """Reset connections on which `data` passes."""
        self._add("reset", way, data, times)

    def clear(self):
        """Meddle no more."""
        with self._lock:
            self._rules = []

    def _add(self, what, way, data, times):
        with self._lock:
            self._rules.append([what, way, data, times])

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near):
        """Carry one connection until both ways are done or one breaks."""
        with near, socket.create_connection(self._target) as far:
            self._open |= {near, far}
            back = threading.Thread(target=self._carry, args=(DOWN, far, near), daemon=True)
            back.start()
            self._carry(UP, near, far)
            back.join()
            self._open -= {near, far}

    def _carry(self, way, source, target):
        """Carry bytes one way, a mebibyte at a time; what is looked for may be cut in two."""
        before = b""
        try:
            while data := source.recv(1 << 20):
                target.sendall(self._meddle(way, before, data))
                before = (before + data)[-LONGEST:]
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for sock in (source, target):
                _reset(sock)

    def _meddle(self, way, before, data):
        """Give the bytes to be carried on; `before` are the last ones that went."""
        came = before + data
        with self._lock:
            for rule in self._rules:
                what, meant, wanted, times = rule
                first = max(0, len(before) - len(wanted) + 1)  # what ends here, and not before
                at = came.find(wanted, first) if meant == way and times != 0 else -1
                if at < 0:
                    continue
                rule[3] = None if times is None else times - 1
                self.done.append(what)
                if what == "reset":
                    raise ConnectionResetError
                last = at + len(wanted) - 1 - len(before)
                data = data[:last] + bytes([data[last] ^ 1]) + data[last + 1 :]
        return data


def _reset(sock):
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RD)  # wakes the thread that reads here; the linger makes its closing a reset
