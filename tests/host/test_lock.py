import contextlib
import fcntl
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
from collections import Counter

import pytest

from pix4d_watcher.core.errors import Cure, HostError
from pix4d_watcher.host import lock
from pix4d_watcher.host.lock import AlreadyRunning, hold

HOLDER = """
import sys
from pathlib import Path
from pix4d_watcher.host.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    path = tmp_path / "state" / "lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.communicate(timeout=30)


def test_second_process_is_told_who_holds_it(holder):
    """While one process holds the lock, another one gets an error that names the first and says what to do."""
    path, process = holder
    with (
        pytest.raises(AlreadyRunning, match=rf"process {process.pid} already works with this journal") as caught,
        hold(path),
    ):
        pytest.fail("locked twice")
    assert caught.value.cure is Cure.WAIT
    assert isinstance(caught.value, HostError)


def test_kill_gives_the_lock_back(holder):
    """After kill -9 the next one starts at once; the file stays and carries the new number."""
    path, process = holder
    process.kill()
    process.wait(timeout=30)
    with hold(path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert path.exists()


def test_private_directory_is_made(tmp_path):
    """Only the last directory is made, readable by nobody else; the lock can be taken again after it was released."""
    path = tmp_path / "state" / "lock"
    for _ in range(2):
        with hold(path):
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_children_do_not_inherit(tmp_path):
    """A program that was started while the lock was held does not keep it."""
    path = tmp_path / "lock"
    with hold(path):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with hold(path):
            pass
    finally:
        child.kill()
        child.wait(timeout=30)


def test_missing_parent(tmp_path):
    """More than one missing directory is a wrong path, not something to make."""
    with pytest.raises(HostError, match="does not exist") as caught, hold(tmp_path / "no" / "such" / "lock"):
        pytest.fail("locked")
    assert "journal" in str(caught.value)
    assert not (tmp_path / "no").exists()


def test_symlink_is_not_followed(tmp_path):
    """A planted link cannot make the service write elsewhere."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="cannot open the lock file"), hold(tmp_path / "lock"):
        pytest.fail("locked")
    assert not (tmp_path / "elsewhere").exists()


def _as_nobody(path, queue):
    os.setgid(65534)
    os.setuid(65534)
    try:
        with hold(path):
            queue.put("locked")
    except HostError as error:
        queue.put(f"{type(error).__name__}: {error}")


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed: run as root")
def test_no_permission(tmp_path):
    """Another user's journal directory: the error names the file and says what to do."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_as_nobody, args=(tmp_path / "state" / "lock", queue))
    process.start()
    text = queue.get(timeout=60)
    process.join(60)
    assert text.startswith("HostError: no permission to open the lock file")


def test_holder_is_named_while_locks_come_and_go(tmp_path):
    """Who holds a lock is named at every look, however many other locks are taken and given back meanwhile."""
    over = threading.Event()

    def others(number):
        while not over.is_set():
            with contextlib.ExitStack() as files:
                for count in range(30):
                    file = files.enter_context((tmp_path / f"other-{number}-{count}").open("w"))
                    fcntl.flock(file, fcntl.LOCK_EX)

    threads = [threading.Thread(target=others, args=(number,)) for number in range(6)]
    path = tmp_path / "held.lock"
    with lock.hold(path):
        for thread in threads:
            thread.start()
        found = Counter(lock.holder(path) for _look in range(1000))
        over.set()
        for thread in threads:
            thread.join()
    assert found == {os.getpid(): 1000}
    assert lock.holder(path) is None
