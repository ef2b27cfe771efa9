"""The process killed at the Nth flush to the disk: inside a commit, inside the writing of a result, inside a backup.

Twice: by `strace`, which knows nothing of the program and counts the calls of each thread for itself, so that N
means the first thread that comes to its Nth flush; and by `syncpoints`, which counts those of the whole process.
"""

import contextlib
import fcntl
import os
import platform
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import uuid

import pytest
from lives import Ended, Lab, once_for_all
from nursery import Child

SEED = 20261122
FLUSHES, CHUNKS = 36, 6
BY_STRACE = 8
FEWEST = 20
"""Flushes that a life has at least."""

MOST = 400
"""Flushes of a life beyond which something else is wrong."""

RECEIVE, SEND = 0xC0502100, 0xC0182101
"""SECCOMP_IOCTL_NOTIF_RECV and _SEND, of linux/seccomp.h: 80 bytes of question, 24 bytes of answer."""

CONTINUE = 1

pytestmark = pytest.mark.timeout(400)


def to_flush(life, crash):
    """Run a life until its flush number `crash`, with 0 to its end; gives how it ended, `passed` are its flushes."""
    passed = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        address = f"pix4d-watcher-flushes-{uuid.uuid4()}"
        listener.bind(f"\0{address}")
        listener.listen(1)
        thread = threading.Thread(target=let_go, args=(listener, life, int(crash or 0), passed))

        def start(arguments, **more):
            environment = {**os.environ, "SYNC_SOCKET": f"@{address}"}
            thread.start()
            return Child(arguments, cwd=life.directory, environment=environment, first="syncpoints", **more)

        code = life.live_as(start, crash)
        thread.join()
    return Ended(code, passed)


def let_go(listener, life, last, passed):
    """Let each flush of a process happen but the last one, at which the process dies."""
    with listener.accept()[0] as line:
        (handle,) = socket.recv_fds(line, 1, 1)[1]
    asked = select.poll()
    asked.register(handle, select.POLLIN)
    try:
        while asked.poll()[0][1] & select.POLLIN:
            with contextlib.suppress(FileNotFoundError):  # the thread died meanwhile
                question = fcntl.ioctl(handle, RECEIVE, bytes(80))
                passed.append(len(passed) + 1)
                if len(passed) == last:
                    life.die()
                fcntl.ioctl(handle, SEND, struct.pack("QqiI", *struct.unpack_from("Q", question), 0, 0, CONTINUE))
    finally:
        os.close(handle)


def by_strace(life, number):
    """Run a life as a fresh interpreter under strace, which kills it where a thread comes to its flush `number`."""
    inject = f"inject=fsync,fdatasync:signal=KILL:when={number}"
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fsync,fdatasync", "-e", inject]
    started = []

    def start(arguments, **more):
        command.extend([sys.executable, "-m", "pix4d_watcher", *arguments])
        started.append(subprocess.Popen(command, cwd=life.directory, start_new_session=True, **more))
        return started[0]

    try:
        return Ended(life.live_as(start, str(number)))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started[0].pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def machine():
    """Skip where the numbers of the calls are not known."""
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("syncpoints knows the numbers of the calls on x86_64 and aarch64 only")


@pytest.fixture(scope="session")
def flushes(machine, tmp_path_factory):
    """Give how many flushes a clean life has, one or two more or less; the same to every worker."""

    def count():
        lab = Lab(tmp_path_factory.mktemp("clean"), by=to_flush)
        (end,) = lab.ends("")
        assert not lab.broken, lab.broken
        assert len(end.passed) >= FEWEST, "flushes are not seen"
        return len(end.passed)

    return once_for_all(tmp_path_factory, "flushes", count)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_killed_at_a_flush(flushes, tmp_path, record_property, chunk):
    """Killed at the Nth flush of the whole process, the next life brings the flight to its end, once."""
    lab = Lab(tmp_path, by=to_flush)
    chosen = random.Random(SEED).sample(range(1, flushes + 1), min(FLUSHES, flushes))
    passed = lab.reach_all([(str(number),) for number in chosen[chunk::CHUNKS]])
    lab.report(record_property, "flushes of the process")
    assert sum(one is not None for one in passed) > len(passed) / 2, "most flushes are come to"


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_killed_at_every_flush(machine, tmp_path, record_property):
    """Killed at the first, the second and every further flush of a life, the next one brings the flight to its end."""
    lab = Lab(tmp_path, by=to_flush)
    until_it_ends(lab)
    lab.report(record_property, "flushes of the process, soak")


@pytest.mark.parametrize("number", sorted(random.Random(SEED).sample(range(1, 13), BY_STRACE)))
def test_killed_by_strace(need, tmp_path, record_property, number):
    """Killed by strace at a thread's Nth flush, the next life brings the flight to its end, once."""
    need("strace")
    lab = Lab(tmp_path, by=by_strace)
    after = lab.reach(str(number))
    lab.report(record_property, "flushes by strace")
    assert after is not None, "no thread came to that flush"


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_killed_by_strace_at_every_flush(need, tmp_path, record_property):
    """Killed by strace at every flush that a thread comes to, the next life brings the flight to its end, once."""
    need("strace")
    lab = Lab(tmp_path, by=by_strace)
    until_it_ends(lab)
    lab.report(record_property, "flushes by strace, soak")


def until_it_ends(lab):
    """Kill a life at its first flush, the next one at its second, until a life comes to its end."""
    for number in range(1, MOST):
        if not lab.ends(str(number))[0].crashed:
            return
    lab.broken.append(f"a life with more than {MOST} flushes")
