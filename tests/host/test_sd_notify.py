import os
import socket
import subprocess
import sys

import pytest

from pix4d_watcher.host import notify


@pytest.fixture
def listen(monkeypatch):
    sockets = []

    def bind(address):
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(address)
        receiver.settimeout(5)
        sockets.append(receiver)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        return receiver

    yield bind
    for receiver in sockets:
        receiver.close()


def test_path_socket(listen, tmp_path):
    """Each call is one datagram with the words of sd_notify(3)."""
    receiver = listen(str(tmp_path / "notify"))
    assert notify.ready()
    assert notify.watchdog()
    assert notify.stopping()
    assert notify.notify("READY=1", "STATUS=two lines")
    received = [receiver.recv(4096) for _ in range(4)]
    assert received == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1", b"READY=1\nSTATUS=two lines"]


def test_abstract_socket(listen):
    """A socket without a file, as containers use it, works too."""
    receiver = listen(f"\0pix4d-watcher-test-{os.getpid()}")
    assert notify.status("3 folders, uploading")
    assert receiver.recv(4096) == b"STATUS=3 folders, uploading"


def test_status_is_one_field(listen, tmp_path):
    """A line break in a text cannot smuggle in another field, and bytes of names that are not UTF-8 do not fail."""
    receiver = listen(str(tmp_path / "notify"))
    assert notify.status("a\nREADY=1\0\udce9")
    assert receiver.recv(4096) == b"STATUS=a READY=1  "


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative", "/no/such/socket"])
def test_nobody_listens(monkeypatch, address):
    """Without a usable socket every call does nothing and says so."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify.ready()


def test_full_queue_does_not_hang(listen, tmp_path, monkeypatch):
    """A listener that reads no more costs the time-out at most."""
    monkeypatch.setattr(notify, "SEND_TIMEOUT", 0.05)
    listen(str(tmp_path / "notify"))
    assert any(not notify.watchdog() for _ in range(10_000))


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("120000000", "", 60.0),
        ("4000000", "mine", 2.0),
        ("4000000", "1", None),
        ("", "", None),
        ("0", "", None),
        ("-5", "", None),
        ("soon", "", None),
    ],
)
def test_watchdog_interval(monkeypatch, usec, pid, expected):
    """Half of systemd's limit in seconds, and None where the limit is not ours or makes no sense."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "mine" else pid)
    assert notify.watchdog_interval() == expected


def test_a_real_process_reports_ready(listen, tmp_path):
    """The variables of systemd are enough: no other set-up is needed in the service's process."""
    receiver = listen(str(tmp_path / "notify"))
    code = "from pix4d_watcher.host import notify; notify.ready(); notify.status('up')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert [receiver.recv(100), receiver.recv(100)] == [b"READY=1", b"STATUS=up"]
